
# The functions of applications through PostgREST: named arguments, answers with fitting statuses, and
# SQLSTATEs as ever for whoever calls them in SQL. Roles, grants and the facade are those of docs/postgrest.md.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use StripeLifecycle;
use StripeLifecycle::PostgREST;

my $MARK = 'CONFIDENTIAL';
my $UUID = qr/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}/;

my $stripe = StripeLifecycle::StandIn->new(seed => 26);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => StripeLifecycle::PostgREST::settings(map { "rate_limit_$_" } qw(address role webhook)) . q{
stripe_lifecycle.worker_linger = 60s
});
StripeLifecycle::PostgREST::set_up($server);
my $rest = StripeLifecycle::PostgREST->new($server);
my @shop = (Authorization => 'Bearer ' . $rest->token('shop'));

# A test: the answer is an error with this status, and shows nothing of what was sent.
sub fails
{
	my ($answer, $status, $code, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $body = $answer->{json};
	my $ok = $answer->{status} == $status && ref $body eq 'HASH' && ($body->{code} // '') eq $code;

	$ok &&= join(' ', sort keys %$body) eq 'code details hint message' && !ref $body->{message} && length $body->{message};
	$ok &&= "$answer->{reason}$answer->{content}" . join('', map { ref ? @$_ : $_ } %{ $answer->{headers} }) !~ /\Q$MARK\E/;
	$ok &&= $answer->{headers}{'sim-attempts'} <= 1;
	$ok &&= ($answer->{headers}{'x-frame-options'} // '') eq 'DENY' if $code =~ /^(SL|4000|4P|5)/;
	$ok &&= $answer->{reason} =~ /^[A-Za-z ]+$/;
	ok($ok, $name) or diag("wanted $status $code, got $answer->{status} $answer->{reason}\n"
		  . join('', map { "$_: $answer->{headers}{$_}\n" } sort keys %{ $answer->{headers} })
		  . $answer->{content});
	return;
}

#
# What goes well
#

my $answer = $rest->rpc('create_payment', { amount => 2000, currency => 'eur', idempotency_key => 'order-1' }, @shop);
is($answer->{status}, 200, 'a payment');
like($answer->{json}, qr/^$UUID$/, 'its id is a JSON string');
my $id = $answer->{json};
my $intent = $server->intent_known($id);
is($rest->rpc('create_payment', { idempotency_key => 'order-1', currency => 'eur', amount => 2000 }, @shop)->{json}, $id, 'the same again');
$answer = $rest->rpc('create_payment',
	{
		amount => '1500', currency => 'USD', idempotency_key => 'order-2', description => "\x{1f4b6} caf\x{e9}",
		receipt_email => 'jenny@example.com', capture_method => 'manual', decline_policy => 'retry',
		metadata => { a => 'b' }, params => { payment_method_types => ['card'], statement_descriptor => undef }
	}, @shop);
is($answer->{status}, 200, 'with all there is') or diag $answer->{content};
is_deeply(
	$server->row("SELECT amount, currency, description, capture_method, decline_policy, metadata, params
					FROM stripe_lifecycle.payments WHERE id = '$answer->{json}'"),
	{
		amount => 1500, currency => 'usd', description => "\x{1f4b6} caf\x{e9}", capture_method => 'manual',
		decline_policy => 'retry', metadata => { a => 'b' }, params => { payment_method_types => ['card'], statement_descriptor => undef }
	},
	'as it was sent');
is($rest->request('POST', '/rpc/create_payment', 'amount=700&currency=eur&idempotency_key=order-3',
		'Content-Type' => 'application/x-www-form-urlencoded', @shop)->{status}, 200, 'as a form');

foreach my $look (
	sub { $rest->rpc('payment_status', { payment_id => $_[0] }, @_[ 1 .. $#_ ]) },
	sub { $rest->get("/rpc/payment_status?payment_id=$_[0]", @_[ 1 .. $#_ ]) })
{
	$answer = $look->($id);
	is($answer->{status}, 200, 'its status, asked for without a token') or diag $answer->{content};
	is(join(' ', @{ $answer->{json} }{qw(id state amount currency payment_intent_id)}), "$id created 2000 eur $intent", 'is an object');
	like($answer->{json}{client_secret}, qr/^${intent}_secret_/, 'with what the browser needs');
	is($answer->{headers}{'cache-control'}, 'no-store', 'not to be kept by anybody');
}
is($rest->rpc('confirm_payment', { payment_id => $id, params => { payment_method => 'pm_card_visa' } }, @shop)->{json},
	$server->request($id, 'confirm')->{id}, 'a confirmation gives the id of its request');
eventually(sub { $server->deliver_webhooks($stripe); $server->state($id) }, 'succeeded', 'it is paid');
my $other = $rest->rpc('create_payment', { amount => 900, currency => 'eur', idempotency_key => 'order-4' }, @shop)->{json};
$server->intent_known($other);
$answer = $rest->rpc('cancel_payment', { payment_id => $other, cancellation_reason => 'abandoned' }, @shop);
like($answer->{content}, qr/^\d+$/, 'a cancellation gives an id, too');
eventually(sub { $server->deliver_webhooks($stripe); $server->state($other) }, 'failed', 'it is canceled');

#
# What is refused
#

my %good = (amount => 2000, currency => 'eur', idempotency_key => 'new');
fails($rest->rpc('create_payment', { %good, %{ $_->[2] } }, @shop), @$_[ 0, 1 ], "create_payment: $_->[3]")
  foreach
  [ 422, 'SL010', { amount => -1 }, 'negative' ],
  [ 422, 'SL010', { amount => 0 }, 'nothing' ],
  [ 422, 'SL010', { amount => undef }, 'null' ],
  [ 422, 'SL010', { amount => 999999999999 }, 'too much' ],
  [ 422, 'SL011', { currency => $MARK }, 'no currency' ],
  [ 422, 'SL011', { currency => undef }, 'null for a currency' ],
  [ 422, 'SL012', { idempotency_key => '' }, 'an empty key' ],
  [ 422, 'SL012', { idempotency_key => $MARK x 30 }, 'a long key' ],
  [ 422, 'SL013', { metadata => { a => { $MARK => 1 } } }, 'nested metadata' ],
  [ 422, 'SL013', { metadata => $MARK }, 'metadata that is a string' ],
  [ 422, 'SL014', { params => { amount => $MARK } }, 'params with an amount' ],
  [ 422, 'SL014', { params => [$MARK] }, 'params that are a list' ],
  [ 422, 'SL015', { customer => $MARK }, 'customer' ],
  [ 422, 'SL015', { receipt_email => $MARK }, 'receipt_email' ],
  [ 422, 'SL015', { capture_method => $MARK }, 'capture_method' ],
  [ 422, 'SL015', { decline_policy => $MARK }, 'decline_policy' ],
  [ 422, 'SL015', { stripe_account => "acct_1\r\nX-Inj: 1" }, 'stripe_account' ],
  [ 422, 'SL019', { description => "card 4242 4242 4242 4242 $MARK" }, 'a card number' ],
  [ 409, 'SL016', { idempotency_key => 'order-1', amount => 2001 }, 'another amount' ],
  [ 409, 'SL016', { idempotency_key => 'order-1', description => $MARK }, 'another description' ];
$answer = $rest->rpc('create_payment', { %good, idempotency_key => 'order-1', amount => 2001 }, @shop);
is($answer->{json}{message}, 'idempotency key was used before with another "amount"', 'a message that can be shown');
is($answer->{json}{details}, 'The payment that has this key is left as it is.', 'with details');
like($answer->{json}{hint}, qr/use a new key/, 'and a hint');
is($answer->{reason}, 'Conflict', 'under the standard reason phrase');
is($server->value("SELECT count(*) FROM stripe_lifecycle.payments"), 4, 'no payment came of these');

# Unknown payments
my $unknown = '01890000-0000-7000-8000-000000000000';
fails($rest->rpc('payment_status', { payment_id => $_ }), 404, 'SL017', 'payment_status: ' . ($_ // 'null')) foreach $unknown, undef, '00000000-0000-0000-0000-000000000000';
fails($rest->rpc('payment_status', { payment_id => $unknown, wait => '20 s' }), 404, 'SL017', 'payment_status: no wait for what there is not');
fails($rest->rpc('confirm_payment', { payment_id => $unknown }, @shop), 404, 'SL017', 'confirm_payment: unknown');
fails($rest->rpc('cancel_payment', { payment_id => $unknown }, @shop), 404, 'SL017', 'cancel_payment: unknown');
is($rest->rpc('payment_status', { payment_id => $unknown })->{content},
	$rest->rpc('payment_status', { payment_id => undef })->{content}, 'nothing in the answer tells which');
fails($rest->rpc('payment_status', { payment_id => $id, wait => $_->[0] }), 422, 'SL015', "payment_status: wait $_->[0]")
  foreach ['-1 s'], ['1 day'], ['1 month'];

# Payments that have ended
fails($rest->rpc('confirm_payment', { payment_id => $_ }, @shop), 409, 'SL018', 'confirm_payment: ended') foreach $id, $other;
fails($rest->rpc('cancel_payment', { payment_id => $_ }, @shop), 409, 'SL018', 'cancel_payment: ended') foreach $id, $other;
fails($rest->rpc('cancel_payment', { payment_id => $id, cancellation_reason => $MARK }, @shop), 422, 'SL015', 'cancel_payment: no such reason');

# What PostgREST refuses by itself
is($rest->rpc('payment_status', { payment_id => 'no uuid' })->{status}, 400, 'an id that is no UUID');
is($rest->rpc('create_payment', { %good, amount => 'much' }, @shop)->{status}, 400, 'an amount that is no number');
is($rest->rpc('create_payment', { %good, amounts => 1 }, @shop)->{status}, 404, 'an argument that there is not');
is($rest->rpc('create_payment', { amount => 1 }, @shop)->{status}, 404, 'arguments missing');
is($rest->rpc('create_payment', '{', @shop)->{status}, 400, 'no JSON');
is($rest->rpc('no_such_function', {}, @shop)->{status}, 404, 'no such function');

#
# Not now: 503, and PostgREST repeats nothing by itself
#

is($rest->get('/rpc/create_payment?amount=1&currency=eur&idempotency_key=get', @shop)->{status}, 405, 'GET is read-only');
$server->sql(q{
	CREATE FUNCTION public.fails() RETURNS trigger LANGUAGE plpgsql AS $$
		DECLARE code text := current_setting('tap.code');
		BEGIN RAISE EXCEPTION USING ERRCODE = code, MESSAGE = E'CONFIDENTIAL\r\nX-Inj: 1', DETAIL = 'CONFIDENTIAL', HINT = 'CONFIDENTIAL'; END $$;
	CREATE TRIGGER fails AFTER INSERT ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION public.fails();
});
foreach my $code (qw(40001 40P01 53200 55P03 57014 58030 25006))
{
	my $length = $server->log_length;

	$server->sql("ALTER ROLE shop SET tap.code = '$code'");
	$answer = $rest->rpc('create_payment', { %good }, @shop);
	fails($answer, 503, $code, "a trigger that raises $code");
	is($answer->{json}{message}, 'not available just now', 'and no word of what it said');
	like($answer->{headers}{'retry-after'}, qr/^[1-9]\d?$/, 'but when to come back');
	is($answer->{headers}{'x-inj'}, undef, 'no header of its own');
	like($server->log_text($length), qr/SQLSTATE $code: CONFIDENTIAL/, 'the log has it');
}
foreach ([ P0001 => 400 ], [ PT402 => 402 ], [ '23505' => 409 ], [ XX000 => 500 ])
{
	$server->sql("ALTER ROLE shop SET tap.code = '$_->[0]'");
	is($rest->rpc('create_payment', { %good }, @shop)->{status}, $_->[1], "a trigger's own $_->[0] is left to PostgREST");
}
$server->sql('DROP TRIGGER fails ON stripe_lifecycle.payments');
$server->sql("BEGIN; SELECT 1 FROM stripe_lifecycle.payments WHERE idempotency_key = 'order-3' FOR UPDATE");
$server->sql("ALTER ROLE shop SET lock_timeout = '200ms'");
my $locked = $server->value("SELECT id FROM stripe_lifecycle.payments WHERE idempotency_key = 'order-3'");
fails($rest->rpc('cancel_payment', { payment_id => $locked }, @shop), 503, '55P03', 'a locked payment');
is($rest->rpc('payment_status', { payment_id => $locked })->{status}, 200, 'which can be looked at');
$server->sql('COMMIT');

#
# Roles
#

fails($rest->rpc('create_payment', { %good }), 401, '42501', 'create_payment without a token');
fails($rest->rpc('cancel_payment', { payment_id => $id }), 401, '42501', 'cancel_payment without a token');
is($rest->rpc('webhook', '{}', @shop)->{status}, 403, 'webhook with a token of the shop');
is($rest->rpc($_, {}, @shop)->{status}, 403, "$_ with a token of the shop")
  foreach qw(pause_worker resume_worker health stats recent_rejections legal_transitions_x) [ 0 .. 4 ];
is($rest->get("/$_")->{status}, 401, "table $_ without a token") foreach qw(payments payment_transitions webhook_events api_requests webhook_rejections);
is($rest->get("/$_", @shop)->{status}, 403, "table $_ with a token of the shop") foreach qw(payments payment_transitions webhook_events api_requests worker_state);
is($rest->request('POST', '/payments', '{"state": "succeeded"}', 'Content-Type' => 'application/json', @shop)->{status}, 403, 'no row can be inserted');
is($rest->get('/payments', Authorization => 'Bearer ' . $rest->token('postgres'))->{status}, 403, 'nobody becomes a superuser');
is($rest->rpc('payment_status', { payment_id => $id }, Authorization => 'Bearer junk')->{status}, 401, 'a token that is none');
is($rest->rpc('payment_status', { payment_id => $id }, Authorization => 'Bearer ' . $rest->token('shop', exp => time - 10))->{status}, 401, 'a token that has expired');
is($rest->rpc('legal_transitions', {}, @shop)->{status}, 200, 'what shop may call');

#
# In SQL the SQLSTATEs are what they are
#

is($server->error($server->create_payment_sql(amount => -1))->{sqlstate}, 'SL010', 'SQL: SL010');
is($server->error("SELECT stripe_lifecycle.cancel_payment('$unknown')")->{sqlstate}, 'SL017', 'SQL: SL017');
is($server->error("SELECT * FROM stripe_lifecycle.payment_status('$unknown')")->{sqlstate}, 'SL017', 'SQL: payment_status');
$server->sql("SET request.method = 'POST'; SET request.path = '/rpc/other'");
is($server->error("SELECT * FROM stripe_lifecycle.payment_status('$unknown')")->{sqlstate}, 'SL017', 'HTTP for another function: SL017');
$server->sql("SET request.path = '/rpc/payment_status'");
is($server->error("SELECT * FROM stripe_lifecycle.payment_status('$unknown')")->{sqlstate}, 'PGRST', 'HTTP for this one: PGRST');
$server->sql('SET stripe_lifecycle.http_errors = off');
is($server->error("SELECT * FROM stripe_lifecycle.payment_status('$unknown')")->{sqlstate}, 'SL017', 'http_errors = off');
$server->sql("SET stripe_lifecycle.http_errors = on; SET request.path = ''");
is($server->error("SELECT * FROM stripe_lifecycle.payment_status('$unknown')")->{sqlstate}, 'PGRST', 'http_errors = on');
$server->sql('RESET stripe_lifecycle.http_errors; RESET request.method; RESET request.path');
my $error = $server->error("BEGIN; SELECT set_config('request.path', '/rpc/payment_status', true), set_config('request.method', 'POST', true);
	SELECT * FROM stripe_lifecycle.payment_status('$unknown')");
$server->sql('ROLLBACK');
like($error->{text}, qr/^DETAIL:  \{"status": 404, "headers": \{\}\}$/m, 'headers are an object even if there are none');
is($server->error("SELECT * FROM stripe_lifecycle.payment_status('$unknown')")->{sqlstate}, 'SL017', 'afterwards the session is as before');

#
# A schema of one's own, as the documentation has it
#

$server->sql(StripeLifecycle::PostgREST::block('facade.sql'));
$server->sql(q{
	CREATE FUNCTION api.before() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM set_config('response.headers', '[{"X-Site": "mine \"quoted\""}, {"x-frame-options": "SAMEORIGIN"}, {"X-Site": "twice"}]', true);
		PERFORM stripe_lifecycle.pre_request();
	END $$;
	CREATE FUNCTION api.careful() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
	BEGIN
		PERFORM stripe_lifecycle.create_payment(1, 'eur', 'order-1');
		RETURN 'made';
	EXCEPTION WHEN SQLSTATE 'SL016' THEN
		RETURN 'caught SL016';
	END $$;
	INSERT INTO api.baskets VALUES (7, 4200, 'eur'), (8, 0, 'eur');
	GRANT EXECUTE ON FUNCTION api.before(), api.careful() TO web_anon;
});
my $own = StripeLifecycle::PostgREST->new($server, 'db-schemas' => 'api', 'db-pre-request' => 'api.before');
$answer = $own->rpc('checkout', { basket => 7 });
like($answer->{json}, qr/^$UUID$/, 'a function of the site creates a payment') or diag $answer->{content};
is($own->rpc('checkout', { basket => 7 })->{json}, $answer->{json}, 'again: the same payment');
is($own->rpc('payment_status', { payment_id => $answer->{json} })->{json}{amount}, 4200, 'at the price of the database');
is($own->rpc('payment_status', { payment_id => $unknown })->{status}, 404, 'a wrapper of the same name has the statuses');
$answer = $own->rpc('checkout', { basket => 8 });
is("$answer->{status} $answer->{json}{code}", '422 SL010', 'one of another name has them by its setting');
is($own->rpc('careful', {})->{json}, 'caught SL016', 'a function that catches an SQLSTATE finds it');
my $useless = '{"id":"evt_useless","object":"event","type":"a.b","created":1,"livemode":false,"data":{"object":{"id":"x"}}}';
$answer = $own->webhook($useless, sign($useless));
is($answer->{content}, '{"received": true, "outcome": "ignored"}', 'the webhook, too');
is($answer->{headers}{'x-frame-options'}, 'SAMEORIGIN', 'a header that the site has set stays');
is_deeply($answer->{headers}{'x-site'}, [ 'mine "quoted"', 'twice' ], 'all of them do');
is($answer->{headers}{'x-content-type-options'}, 'nosniff', 'beside ours');
is($own->webhook($useless, 't=1')->{status}, 400, 'with its statuses');
$answer = $own->rpc('payment_status', { payment_id => $unknown });
is($answer->{headers}{'x-content-type-options'}, 'nosniff', 'and errors have the headers');
is($answer->{headers}{'x-site'}, 'twice', 'of a header that is there twice the last');
$own->stop;

#
# Customers see their own payments only
#

$server->configure("stripe_lifecycle.owner_claim = 'sub'");
$rest->reconnect;
my ($jenny, $rosen, $nobody) = map { [ Authorization => 'Bearer ' . $rest->token('shop', @$_) ] } [ sub => 'jenny' ], [ sub => 'rosen' ], [];
my $hers = $rest->rpc('create_payment', { %good }, @$jenny)->{json};
like($hers, qr/^$UUID$/, 'a customer creates a payment');
is($rest->rpc('payment_status', { payment_id => $hers }, @$jenny)->{status}, 200, 'and sees it');
fails($rest->rpc('payment_status', { payment_id => $hers }, @$rosen), 404, 'SL017', 'another does not');
fails($rest->rpc('payment_status', { payment_id => $hers, wait => '20 s' }, @$rosen), 404, 'SL017', 'nor waits for it');
fails($rest->rpc('payment_status', { payment_id => $hers }), 404, 'SL017', 'nor somebody without a token');
fails($rest->rpc('cancel_payment', { payment_id => $hers }, @$rosen), 404, 'SL017', 'nor can he cancel it');
is($rest->rpc('payment_status', { payment_id => $hers }, @$rosen)->{content},
	$rest->rpc('payment_status', { payment_id => $unknown }, @$rosen)->{content}, 'it looks like one that there is not');
fails($rest->rpc('create_payment', { %good }, @$nobody), 401, 'SL050', 'a token that names nobody creates none');

#
# The documentation's table is the table of the source
#

my %documented = map { /^\| `(\w+)` \| (\d+) \| (\d*)/ ? ($1 => "$2 " . ($3 || 0)) : () }
  split /\n/, (slurp_file("$FindBin::RealBin/../../docs/postgrest.md") =~ /^## Errors of the other functions\n(.*?)^## /ms)[0];
my %coded = map { $_->[0] => "$_->[1] $_->[2]" }
  map { [/\{"(\w+)", (\d+), (\d+)\}/] } slurp_file("$FindBin::RealBin/../../src/http_status.c") =~ /^\t(\{"\w+", \d+, \d+\}),/mg;
is_deeply(\%documented, \%coded, 'docs/postgrest.md: statuses');
cmp_ok(scalar keys %coded, '>', 15, 'not of nothing');
my %headers = map { /^\| `([\w-]+)` \| `([^`]*)` \|/ ? (lc $1 => $2) : () }
  split /\n/, (slurp_file("$FindBin::RealBin/../../docs/postgrest.md") =~ /^## Headers\n(.*?)^## /ms)[0];
$answer = $rest->rpc('payment_status', { payment_id => $hers }, @$jenny);
is_deeply({ map { $_ => $answer->{headers}{$_} } keys %headers }, \%headers, 'docs/postgrest.md: headers');
is(join(' ', sort grep { !/^(sim-attempts|content-(type|length))$/ } keys %{ $answer->{headers} }), join(' ', sort keys %headers), 'all of them');

$rest->stop;
$server->stop;
unlike($server->log_text, qr/TRAP:|PANIC:|terminated by signal/, 'nothing crashed');

done_testing();
