
# Stripe's webhooks through PostgREST: which answer each delivery gets, what of it is committed, and that
# nothing of a request gets anywhere it does not belong.

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

# Sent along with everything; never to be seen again.
my $MARK = 'CONFIDENTIAL';

my $stripe = StripeLifecycle::StandIn->new(seed => 25);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => StripeLifecycle::PostgREST::settings(qw(client_address_header rate_limit_address rate_limit_role rate_limit_webhook)) . q{
stripe_lifecycle.worker_linger = 60s
stripe_lifecycle.webhook_lock_timeout = 300ms
stripe_lifecycle.webhook_statement_timeout = 1500ms
wal_level = replica
max_wal_senders = 4
});
StripeLifecycle::PostgREST::set_up($server);
my $rest = StripeLifecycle::PostgREST->new($server);
my @private_headers = (Authorization => "Basic $MARK", 'X-Secret' => $MARK, Cookie => "session=$MARK");

sub rows_of_all_tables
{
	return $server->value(
		join ' UNION ALL ',
		map { "SELECT '$_', count(*), max(xmin::text::bigint) FROM stripe_lifecycle.$_" }
		  qw(payments payment_transitions webhook_events api_requests));
}

sub counted
{
	my ($column) = @_;

	return $server->value("SELECT $column FROM stripe_lifecycle.pg_stat_stripe_lifecycle");
}

my $n = 0;

# An event's text; fields of the PaymentIntent and of the event can be given.
sub event
{
	my ($type, $intent, $payment, %fields) = @_;
	my $event = delete $fields{event} // {};

	return JSON::PP->new->canonical->encode(
		{
			id => 'evt_' . ++$n,
			object => 'event',
			api_version => '2026-10-28.endive',
			created => int time,
			livemode => JSON::PP::false,
			type => $type,
			data => {
				object => {
					id => $intent,
					object => 'payment_intent',
					amount => 2000,
					currency => 'eur',
					status => $type =~ /processing$/ ? 'processing' : $type =~ /succeeded$/ ? 'succeeded' : 'requires_payment_method',
					description => $MARK,
					metadata => { defined $payment ? (stripe_lifecycle_payment_id => $payment) : () },
					%fields
				}
			},
			%$event
		});
}

# A test: this delivery gets this status and this code or outcome, with the headers that all answers have.
sub answers
{
	my ($answer, $status, $wanted, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $body = $answer->{json};
	my $got = ref $body ne 'HASH' ? '' : $body->{error} ? $body->{error}{code} : $body->{outcome} // $body->{code};
	my $ok = $answer->{status} == $status && $got eq $wanted;

	$ok &&= $answer->{headers}{'x-content-type-options'} eq 'nosniff' if $status < 500;
	$ok &&= $answer->{headers}{'sim-attempts'} == 1;
	$ok &&= "$answer->{reason}$answer->{content}" . join('', map { ref ? @$_ : $_ } %{ $answer->{headers} }) !~ /\Q$MARK\E/;
	ok($ok, $name) or diag("wanted $status $wanted, got $answer->{status} $answer->{reason}\n"
		  . join('', map { "$_: $answer->{headers}{$_}\n" } sort keys %{ $answer->{headers} })
		  . $answer->{content});
	return;
}

#
# Every verified event is answered with 200
#

my $id = $server->create_payment(amount => 2000, currency => 'eur');
my $intent = $server->intent_known($id);
my $processing = event('payment_intent.processing', $intent, $id);
answers($rest->webhook($processing, sign($processing), @private_headers), 200, 'applied', 'applied');
is($server->state($id), 'processing', 'and committed');
answers($rest->webhook($processing, sign($processing)), 200, 'duplicate', 'duplicate');
my $old = event('payment_intent.requires_action', $intent, $id, status => 'requires_action', event => { created => int(time) - 60 });
answers($rest->webhook($old, sign($old)), 200, 'stale', 'stale');
my $other = event('payment_intent.succeeded', $intent, $id, amount => 17);
answers($rest->webhook($other, sign($other)), 200, 'conflict', 'conflict');
my $parked = event('payment_intent.succeeded', 'pi_of_nobody');
answers($rest->webhook($parked, sign($parked)), 200, 'unmatched', 'unmatched');
my $useless = event('customer.created', 'cus_1', undef, object => 'customer');
answers($rest->webhook($useless, sign($useless)), 200, 'ignored', 'ignored');
my $paid = event('payment_intent.succeeded', $intent, $id);
my $answer = $rest->webhook($paid, sign($paid));
answers($answer, 200, 'applied', 'the money has come');
is($server->state($id), 'succeeded', 'and is on record');
is($answer->{content}, '{"received": true, "outcome": "applied"}', 'the body of a 200');
like($answer->{headers}{'content-type'}, qr{^application/json}, 'is JSON');
is($server->value("SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE source = 'webhook'"), 6, 'each event is stored once');

# Old and new secret at the same time; the label is kept.
write_secret($server->{webhook_secret_file}, "$WEBHOOK_SECRET\nnew whsec_new\n");
$server->reload;
$useless = event('customer.updated', 'cus_1', undef, object => 'customer');
answers($rest->webhook($useless, sign($useless, 'whsec_new')), 200, 'ignored', 'a second secret');
is($server->value("SELECT secret_label FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_$n'"), 'new', 'and its label');

#
# What is refused is answered, committed and counted, and writes nothing
#

my $now = int time;
my $body = event('payment_intent.succeeded', $intent, $id);
my $good = sign($body);
my ($hex) = $good =~ /v1=(\w+)/;
my $before = rows_of_all_tables();
my %counted = map { $_ => counted("refused_$_") } qw(bad_signature stale malformed too_large bad_body bad_event);

answers($rest->webhook(@$_[ 0, 1 ], @private_headers), @$_[ 2 .. 4 ])
  foreach
  [ $body, sign($body, 'whsec_other'), 400, 'SL021', 'wrong secret' ],
  [ $body, sign($body, ''), 400, 'SL021', 'empty secret' ],
  [ "$body ", $good, 400, 'SL021', 'a blank more' ],
  [ $body =~ s/2000/2001/r, $good, 400, 'SL021', 'another amount' ],
  [ $body, "t=$now,v1=" . 'f' x 64, 400, 'SL021', 'made up' ],
  [ $body, 't=' . ($now + 1) . ",v1=$hex", 400, 'SL021', 'another time' ],
  [ $body, "t=$now,v0=$hex,v1=" . '0' x 64, 400, 'SL021', 'right, but of another scheme' ],
  [ $body, sign($body, undef, $now - 301), 400, 'SL022', 'stale' ],
  [ $body, sign($body, undef, $now + 310), 400, 'SL022', 'early' ],
  [ $body, sign($body, undef, 0), 400, 'SL022', 'of 1970' ],
  [ $body, undef, 400, 'SL023', 'no header' ],
  [ $body, '', 400, 'SL023', 'empty header' ],
  [ $body, $MARK, 400, 'SL023', 'no signature at all' ],
  [ $body, "t=$now", 400, 'SL023', 'no v1' ],
  [ $body, "v1=$hex", 400, 'SL023', 'no time' ],
  [ $body, "t=$now,t=$now,v1=$hex", 400, 'SL023', 'two times' ],
  [ $body, "t=-$now,v1=$hex", 400, 'SL023', 'a time that is none' ],
  [ $body, "t=$now,v1=" . uc $hex, 400, 'SL023', 'upper case' ],
  [ $body, "$good,x=" . $MARK x 1000, 400, 'SL023', 'a very long header' ],
  [ '{"a": 1}', sign('{"a": 1}'), 400, 'SL026', 'signed, but no event' ],
  [ '{}', sign('{}'), 400, 'SL026', 'an empty object' ],
  [ '{"object": "v2.core.event", "id": "evt_1"}', sign('{"object": "v2.core.event", "id": "evt_1"}'), 400, 'SL026', 'a thin event' ],
  map { [ $_->[0], sign($_->[0]), 400, 'SL026', $_->[1] ] }
  [ event('payment_intent.succeeded', $intent, $id, event => { created => $MARK }), 'a time that is a string' ],
  [ event('payment_intent.succeeded', $intent, $id, event => { livemode => 1 }), 'livemode a number' ],
  [ event('payment_intent.succeeded', $intent, $id, event => { data => $MARK }), 'no object in it' ],
  [ event('payment_intent.succeeded', $intent, $id, amount => '2000'), 'amount a string' ],
  [ event('payment_intent.succeeded', $intent, $id, object => 'charge'), 'another object than its type says' ];

my $large = event('customer.created', 'cus_1', undef, object => 'customer', description => 'x' x (1024 * 1024));
answers($rest->webhook($large, sign($large), @private_headers), 413, 'SL024', 'too large, though signed');
answers($rest->webhook($large, undef), 413, 'SL024', 'too large');
answers($rest->webhook('{"a":"' . 'x' x (8 * 1024 * 1024) . '"}', $good), 413, 'SL024', 'eight megabytes');
my $fits = event('customer.created', 'cus_1', undef, object => 'customer', description => '');
$fits =~ s/"description":""/'"description":"' . 'x' x (1024 * 1024 - length $fits) . '"'/e;
is(length $fits, 1024 * 1024, 'exactly as large as allowed');
answers($rest->webhook($fits, sign($fits)), 200, 'ignored', 'is taken in');

# Twice the same header: PostgREST hands on the last one.
like($rest->raw_webhook($body, "Stripe-Signature: $good", 'Stripe-Signature: t=1,v1=00'), qr/^HTTP\/1.1 400 .*SL023/s, 'a good header and then a bad one');

is( $server->value('SELECT count(*) FROM stripe_lifecycle.payment_transitions'), 3, 'no payment was moved');
my $after = rows_of_all_tables();
$before =~ s/(webhook_events\|)(\d+)\|\d+/$1 . ($2 + 1)/e;
$after =~ s/(webhook_events\|\d+)\|\d+/$1/;
is($after, $before, 'all that was refused wrote nothing');
is(counted('refused_bad_signature') - $counted{bad_signature}, 7, 'bad signatures are counted');
is(counted('refused_stale') - $counted{stale}, 3, 'stale ones are counted');
is(counted('refused_malformed') - $counted{malformed}, 10, 'malformed ones are counted');
is(counted('refused_too_large') - $counted{too_large}, 3, 'large ones are counted');
is(counted('refused_bad_event') - $counted{bad_event}, 8, 'what is no event is counted');

# What an operator sees of them
my $rejections = $server->rows('SELECT * FROM stripe_lifecycle.webhook_rejections');
is(scalar @$rejections, 31, 'all are in the list');
is_deeply([ sort keys %{ $rejections->[0] } ], [qw(at body_bytes reason sender time_skew)], 'with nothing of what was sent');
my ($early) = grep { ($_->{time_skew} // '') =~ /^00:0[45]:/ } @$rejections;
is($early->{reason}, 'stale', 'the list says how far off a time was');
is($early->{body_bytes}, length $body, 'and how long the body was');
my ($ancient) = grep { ($_->{time_skew} // '') =~ /^-\d{6,}:/ } @$rejections;
ok($ancient, 'also of a time half a century ago');
ok(!$server->value("SELECT count(*) FROM stripe_lifecycle.webhook_rejections WHERE at < now() - interval '10 min' OR at > clock_timestamp()"), 'with their times');

#
# A body reaches the function as it was sent: the table of what PostgREST does. A good signature shows it.
#

my $identical = [ 200, 'ignored' ];
my $no_event = [ 400, 'SL026' ];
my $no_object = [ 400, 'SL025' ];
my $as_empty_array = [ 400, 'SL021' ];
my $not_called = [ 400, 'PGRST102' ];
my $odd = '"id":"evt_%d","object":"event","type":"a.b","created":1,"livemode":false,"data":{"object":{"id":"x"}}';
my @bodies = (
	[ "  \t\r\n {$odd}\r\n\t ", $identical, 'blanks around it' ],
	[ "{\"z\":1,\"a\":{\"k\":1,\"k\":2},\"z\":2,$odd}", $identical, 'duplicate keys' ],
	[ "{\"e\":\"\\u00e9\\ud83d\\ude00\\/\xc3\xa9\xf0\x9f\x98\x80\",$odd}", $identical, 'escapes beside the same characters' ],
	[ "{\"n\":[1.0e5,-0.0,1234567890123456789012,0.10],$odd}", $identical, 'numbers' ],
	[ "{\"\\u0061\":1,$odd}", $identical, 'an escaped key' ],
	[ "{ \"s\" :  [ 1 ,2 ] ,$odd }", $identical, 'blanks within' ],
	[ '{' . join(',', map { "\"k$_\":$_" } 1 .. 300) . ",$odd}", $identical, 'three hundred keys' ],
	[ '{"deep":' . '[' x 200 . ']' x 200 . ",$odd}", $identical, 'two hundred levels' ],
	[ "{\"n\":1e400,$odd}", $identical, 'a number larger than any double' ],
	[ '{ }', $no_event, 'an empty object with a blank' ],
	[ "{\"a\":\"\\u0000\",$odd}", $no_object, 'a character that no jsonb holds' ],
	[ '[ {"a":1}, {"a":2} ]', $no_object, 'an array of objects' ],
	[ '[{"a":1},{"b":2}]', $not_called, 'an array of different objects' ],
	[ '[1, 2]', $not_called, 'an array of numbers' ],
	[ '[ ]', $as_empty_array, 'an empty array with a blank' ],
	[ '[]', $no_object, 'an empty array' ],
	[ '"abc"', $as_empty_array, 'a string' ],
	[ ' 12', $as_empty_array, 'a number' ],
	[ 'null', $as_empty_array, 'null' ],
	[ '{"a":1} trailing', $not_called, 'trailing junk' ],
	[ "\xef\xbb\xbf{$odd}", $not_called, 'a byte order mark' ],
	[ "{\"a\":\"\xff\"}", $not_called, 'bytes that are no UTF-8' ],
	[ "{\"a\":\"\x01\"}", $not_called, 'a control character' ],
	[ "{\"a\":1}\0{}", $not_called, 'a NUL' ],
	[ '{"a":"\ud83d"}', $not_called, 'half an escape' ],
	[ '{"a":', $not_called, 'half an object' ]);
foreach (@bodies)
{
	my ($sent, $wanted, $name) = @$_;
	my $bytes = $sent =~ s/%d/++$n/er;

	$answer = $rest->webhook($bytes, sign($bytes));
	$answer->{headers}{'sim-attempts'} = 1;
	$answer->{headers}{'x-content-type-options'} //= 'nosniff';
	answers($answer, @$wanted, "body: $name");
}
$answer = $rest->webhook('', sign(''));
is($answer->{status}, 400, 'body: none');
$answer = $rest->webhook("{$odd}", $good, 'Content-Type' => 'text/json');
is($answer->{status}, 400, 'a content type that PostgREST does not take');
foreach my $type ('application/json', 'Application/JSON', 'application/json;charset=latin1')
{
	my $bytes = "{$odd}" =~ s/%d/++$n/er;

	answers($rest->webhook($bytes, sign($bytes), 'Content-Type' => $type), 200, 'ignored', "content type $type");
}

# With ?columns= in the URL PostgREST looks at nothing, and everything arrives as it is.
sub with_columns
{
	my ($bytes) = @_;

	return $rest->request('POST', '/rpc/webhook?columns=x', $bytes,
		'Content-Type' => 'application/json', 'Stripe-Signature' => sign($bytes));
}
answers(with_columns("{$odd}" =~ s/%d/++$n/er), 200, 'ignored', 'columns: an event');
answers(with_columns($_), 400, 'SL025', "columns: $_") foreach '[ ]', '"abc"', '12', 'null', '[1, 2]', '[{"a":1},{"b":2}]';
is(with_columns('{"a":')->{json}{code}, '22P02', 'columns: half an object');
is($rest->request('POST', '/rpc/webhook?source=x', '{}', 'Content-Type' => 'application/json')->{status}, 400, 'no other query');
is($rest->get('/rpc/webhook')->{status}, 404, 'no GET');
is($rest->request('PUT', '/rpc/webhook', '{}')->{status}, 405, 'no PUT');

#
# Modes
#

my $live = sub { event('customer.created', 'cus_1', undef, object => 'customer', event => { livemode => JSON::PP::true }) };
my $test = sub { event('customer.created', 'cus_1', undef, object => 'customer') };
my $deliver = sub { my $e = $_[0]->(); return $rest->webhook($e, sign($e)) };

answers($deliver->($live), 400, 'SL061', 'a live event at a server with a test key');
answers($deliver->($test), 200, 'ignored', 'a test event');
foreach ([ 'live', [ 200, 'ignored' ], [ 400, 'SL061' ] ], [ 'test', [ 400, 'SL061' ], [ 200, 'ignored' ] ],
	[ 'any', [ 200, 'ignored' ], [ 200, 'ignored' ] ])
{
	my ($mode, $of_live, $of_test) = @$_;

	$server->configure("stripe_lifecycle.webhook_mode = $mode");
	$rest->reconnect;
	answers($deliver->($live), @$of_live, "mode $mode, live event");
	answers($deliver->($test), @$of_test, "mode $mode, test event");
}
write_secret($server->{api_key_file}, "rk_live_tap\n");
$server->configure('stripe_lifecycle.webhook_mode = auto');
$rest->reconnect;
answers($deliver->($live), 200, 'ignored', 'a live event at a server with a restricted live key');
answers($deliver->($test), 400, 'SL061', 'a test event there');
unlink $server->{api_key_file};
$server->reload;
$rest->reconnect;
answers($deliver->($live), 200, 'ignored', 'without a key the mode is not known: live');
answers($deliver->($test), 200, 'ignored', 'and test');
write_secret($server->{api_key_file}, "$API_KEY\n");
$server->reload;
is(counted('refused_wrong_mode'), 4, 'wrong modes are counted');
my $live_paid = event('payment_intent.succeeded', $intent, $id, event => { livemode => JSON::PP::true });
is($server->ingest($live_paid, sign($live_paid)), 'conflict', 'ingest_webhook() has no such check: it is a conflict');

#
# Deliver it again: 503
#

$id = $server->create_payment(amount => 2000, currency => 'eur');
$intent = $server->intent_known($id);
$body = event('payment_intent.processing', $intent, $id);

sub is_unavailable
{
	my ($answer, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	answers($answer, 503, 'PT503', $name);
	is($answer->{reason}, 'webhook not taken in now', "$name: the reason phrase is ours");
	return;
}

rename $server->{webhook_secret_file}, "$server->{webhook_secret_file}.away";
$server->reload;
$rest->reconnect;
is_unavailable($rest->webhook($body, sign($body)), 'no secret');
is_unavailable($rest->webhook($body, 't=1'), 'no secret: not even a malformed header is called malformed');
rename "$server->{webhook_secret_file}.away", $server->{webhook_secret_file};
$server->reload;
$rest->reconnect;

$server->sql('BEGIN');
$server->sql("SELECT 1 FROM stripe_lifecycle.payments WHERE id = '$id' FOR UPDATE");
$answer = $rest->webhook($body, sign($body));
is_unavailable($answer, 'a locked payment');
cmp_ok($answer->{seconds}, '<', 1.4, 'which is given up after webhook_lock_timeout');
$server->sql('COMMIT');

$server->sql('BEGIN');
$server->sql('LOCK stripe_lifecycle.webhook_events');
is_unavailable($rest->webhook($body, sign($body)), 'a locked table');
$server->sql('COMMIT');

# A trigger of somebody's that takes its time, and others that fail in every way.
$server->sql(q{
	CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(5); RETURN NULL; END $$;
	CREATE FUNCTION public.fails() RETURNS trigger LANGUAGE plpgsql AS $$
		DECLARE code text := current_setting('tap.code');
		BEGIN
			PERFORM set_config('response.status', '200', true);
			RAISE EXCEPTION USING ERRCODE = code, MESSAGE = E'CONFIDENTIAL\r\nX-Inj: 1', DETAIL = 'CONFIDENTIAL', HINT = 'CONFIDENTIAL';
		END $$;
	CREATE TRIGGER slow AFTER UPDATE ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION public.slow();
});
$answer = $rest->webhook($body, sign($body));
is_unavailable($answer, 'a slow trigger');
cmp_ok($answer->{seconds}, '<', 4, 'which is ended after webhook_statement_timeout');
$server->sql('DROP TRIGGER slow ON stripe_lifecycle.payments');
$server->sql('CREATE TRIGGER fails AFTER UPDATE ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION public.fails()');
my %status_of = (
	P0001 => 500, PT200 => 500, PT204 => 500, PT400 => 500, PGRST => 500, '01000' => 500, '02000' => 500, '23505' => 500,
	'42501' => 500, SL021 => 500, SL016 => 500, XX000 => 500, '22P02' => 500,
	'40001' => 503, '40P01' => 503, '55P03' => 503, '57014' => 503, '53200' => 503, '25006' => 503, SL020 => 503);
foreach my $code (sort keys %status_of)
{
	my $length = $server->log_length;

	$server->sql("ALTER ROLE web_anon SET tap.code = '$code'");
	$answer = $rest->webhook($body, sign($body));
	answers($answer, $status_of{$code}, "PT$status_of{$code}", "a trigger that raises $code");
	is($answer->{headers}{'x-inj'}, undef, 'its message is not in the answer');
	like($server->log_text($length), qr/DETAIL:  SQLSTATE $code: CONFIDENTIAL/, 'but in the log, with its SQLSTATE');
}
is($server->state($id), 'created', 'none of these was applied');
is($server->value("SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_$n'"), 0, 'nor stored');
is(counted('webhooks_applied'), 2, 'nor counted as taken in');
is(counted('refused_failed'), 13, 'errors are counted');

# A trigger has no say in the status of what is committed.
$server->sql(q{
	DROP TRIGGER fails ON stripe_lifecycle.payments;
	CREATE OR REPLACE FUNCTION public.fails() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM set_config('response.status', '500', true); RETURN NULL; END $$;
	CREATE TRIGGER fails AFTER UPDATE ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION public.fails();
});
answers($rest->webhook($body, sign($body)), 200, 'applied', 'delivered again, it is applied');
is($server->state($id), 'processing', 'at last');
$server->sql('DROP TRIGGER fails ON stripe_lifecycle.payments');

# Isolation levels that PostgREST takes from the role
foreach my $level ('repeatable read', 'serializable')
{
	$server->sql("ALTER ROLE web_anon SET default_transaction_isolation = '$level'");
	$body = event('payment_intent.succeeded', $intent, $id);
	is_unavailable($rest->webhook($body, sign($body)), "$level");
}
$server->sql('ALTER ROLE web_anon RESET default_transaction_isolation');

# Called as PostgREST calls, in transactions that PostgREST would not begin.
sub called_in
{
	my ($begin, $bytes, $header) = @_;
	my $error = $server->error("$begin;
		SET LOCAL ROLE web_anon;
		SELECT set_config('request.headers', json_build_object('stripe-signature', @{[quote($header)]}::text)::text, true);
		SELECT stripe_lifecycle.webhook(@{[quote($bytes)]}::json)");

	$server->sql('ROLLBACK');
	return $error;
}
fails_with(called_in('BEGIN READ ONLY', $body, sign($body)), 'PT503', qr/cannot be written to/, 'a read-only transaction');
is(called_in('BEGIN READ ONLY', $body, 't=1')->{sqlstate}, '', 'where a bad header is still no error');
is(called_in('BEGIN', $body, undef)->{output} =~ /SL023/, 1, 'a header that is null');
foreach my $headers ("''", "'no json'", "'[]'", "'{\"stripe-signature\": 7}'", "'{}'")
{
	like($server->value("BEGIN; SELECT set_config('request.headers', $headers, true); SELECT stripe_lifecycle.webhook('{}'); ROLLBACK"),
		qr/SL023/, "request.headers is $headers");
}
like($server->value('SELECT stripe_lifecycle.webhook(NULL)'), qr/SL025/, 'no body at all');
is($server->value('SHOW lock_timeout'), '0', 'the limits end with the call');
foreach my $allowed ('0', '20s')
{
	like($server->value("SET statement_timeout = '$allowed'; SELECT stripe_lifecycle.webhook('{}'), pg_sleep(1.7)"), qr/SL023/,
		"which does not cut its statement short, of a timeout $allowed");
}
is($server->error("SET statement_timeout = '$_'; SELECT stripe_lifecycle.webhook('{}'), pg_sleep(10)")->{sqlstate}, '57014', "nor does it get longer than $_")
  foreach '300ms', '2500ms';
$server->sql('RESET statement_timeout');

# A standby
$server->node->append_conf('pg_hba.conf', 'local replication all trust');
$server->reload;
$server->node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($server->node, 'base', has_streaming => 1);
$standby->start;
my ($code, $out, $err) = $standby->psql('postgres', sprintf(q{\set VERBOSITY verbose
	SELECT set_config('request.headers', json_build_object('stripe-signature', %s)::text, false);
	SELECT stripe_lifecycle.webhook(%s::json)}, quote(sign($body)), quote($body)));
like($err, qr/PT503/, 'a standby');
my $of_standby = StripeLifecycle::PostgREST->new($standby);
cmp_ok($of_standby->webhook($body, sign($body))->{status}, '>=', 400, 'and one that PostgREST is pointed at takes nothing in');
$of_standby->stop;
$standby->stop('immediate');

#
# Nothing of a request becomes part of an answer, or of another header
#

foreach my $value ("t=1\\r\\nX-Inj: 1", 't=1%0d%0aX-Inj: 1', "t=1\"}],X-Inj", '"', '\\', '${jndi:x}', "t=1,v1=\t$MARK", "\xc3\xa9")
{
	my $raw = $rest->raw_webhook($body, "Stripe-Signature: $value", "X-Inj-$MARK: 1");

	like($raw, qr/\AHTTP\/1\.1 400 Bad Request\r\n/, "header $value");
	unlike($raw, qr/x-inj|jndi|$MARK/i, 'is nowhere in the answer');
}
like($rest->raw_webhook($body, "Stripe-Signature: \xff"), qr/\AHTTP\/1\.1 500 /, 'a header that is no UTF-8 never gets here');

#
# The same event from many sides at once
#

$body = event('payment_intent.succeeded', $intent, $id);
my @children;
my $results = PostgreSQL::Test::Utils::tempdir;
$server->configure('stripe_lifecycle.webhook_lock_timeout = 20s', 'stripe_lifecycle.webhook_statement_timeout = 30s');
$rest->reconnect;
foreach my $child (1 .. 20)
{
	push @children, spawn(sub {
		my $got = $rest->webhook($body, sign($body));

		write_secret("$results/$child", "$got->{status} " . ($got->{json}{outcome} // $got->{content}));
	});
}
StripeLifecycle::finish($_) foreach @children;
my %outcomes;
$outcomes{ slurp_file("$results/$_") }++ foreach 1 .. 20;
is_deeply(\%outcomes, { '200 applied' => 1, '200 duplicate' => 19 }, 'twenty deliveries at once: applied once, all answered with 200');
is($server->state($id), 'succeeded', 'the payment has succeeded');

#
# A flood of bad signatures, and the good webhooks in it
#

$server->configure('stripe_lifecycle.rate_limit_webhook = 0.01', 'stripe_lifecycle.rate_limit_webhook_burst = 5',
	"stripe_lifecycle.client_address_header = 'x-real-ip'");
$rest->reconnect;
my @statuses = map { $rest->webhook($body, 't=1', 'X-Real-IP' => '203.0.113.9')->{status} } 1 .. 12;
is("@statuses", '400 400 400 400 400' . ' 429' x 7, 'after five of them a sender is limited');
$answer = $rest->webhook($body, 't=1', 'X-Real-IP' => '203.0.113.9');
answers($answer, 429, 'SL060', 'with a code of its own');
like($answer->{headers}{'retry-after'}, qr/^[1-9]\d*$/, 'and is told when to come back');
cmp_ok($answer->{headers}{'retry-after'}, '<=', 100, 'in seconds');
is($answer->{headers}{'content-security-policy'}, "default-src 'none'; frame-ancestors 'none'", 'beside the other headers');
$useless = event('customer.created', 'cus_1', undef, object => 'customer');
answers($rest->webhook($useless, sign($useless), 'X-Real-IP' => '203.0.113.9'), 200, 'ignored', 'a good one from the same sender is taken in');
$useless = event('customer.created', 'cus_1', undef, object => 'customer', event => { livemode => JSON::PP::true });
answers($rest->webhook($useless, sign($useless), 'X-Real-IP' => '203.0.113.9'), 400, 'SL061', 'a verified one is not counted, even if it is refused');
answers($rest->webhook($body, 't=1', 'X-Real-IP' => '203.0.113.10'), 400, 'SL023', 'another sender has an account of his own');
is($server->value("SELECT count(*) FROM stripe_lifecycle.webhook_rejections WHERE sender = '203.0.113.9' AND reason = 'malformed'"), 5, 'those over the limit do not wash the list away');
is($server->value("SELECT count(*) FROM stripe_lifecycle.webhook_rejections WHERE sender = '203.0.113.10'"), 1, 'which shows the sender');
cmp_ok(counted('refused_malformed'), '>=', 13, 'but all are counted');
$server->configure('stripe_lifecycle.rate_limit_webhook = 0');

# The list has an end.
$rest->reconnect;
$rest->webhook($body, 't=1', 'X-Real-IP' => "198.51.100.$_") foreach 1 .. 250;
is($server->value('SELECT count(*) FROM stripe_lifecycle.recent_rejections()'), 256, 'the list holds 256');
is($server->value('SELECT sender FROM stripe_lifecycle.recent_rejections() LIMIT 1'), '198.51.100.250', 'the newest first');
$server->sql('CREATE DATABASE other');
$server->sql('CREATE EXTENSION stripe_lifecycle', 'other');
is($server->value('SELECT count(*) FROM stripe_lifecycle.webhook_rejections', 'other'), 0, 'other databases do not see it');
$server->disconnect('other');

#
# Nothing private in any table, or in the log
#

foreach my $table (qw(payments payment_transitions webhook_events api_requests api_attempts operator_actions worker_state))
{
	is($server->value("SELECT count(*) FROM stripe_lifecycle.$table t WHERE t::text ~ '$MARK'"), 0, "nothing private in $table");
}
$server->audit_is_sound;
$rest->stop;
$server->stop;
my $log = $server->log_text =~ s/DETAIL:  SQLSTATE \w{5}: CONFIDENTIAL.*?(?=^20)//gmsr;
unlike($log, qr/$MARK|v1=|STATEMENT:  .*(?:stripe-signature|request.headers)|"object":/, 'nor in the log');
unlike($log, qr/TRAP:|PANIC:|terminated by signal/, 'nothing crashed');

done_testing();
