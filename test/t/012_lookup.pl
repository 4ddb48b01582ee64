
# Requests of which nobody knows what became: each is looked up at Stripe and
# ends as the evidence says, and none is ever sent again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use StripeLifecycle;

my $stripe = StripeLifecycle::StandIn->new(seed => 12);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
stripe_lifecycle.worker_linger = 60s
stripe_lifecycle.connect_timeout = 2s
stripe_lifecycle.request_timeout = 5s
stripe_lifecycle.retry_base_delay = 40
stripe_lifecycle.retry_max_delay = 2s
});

my ($CREATE, $CONFIRM, $CANCEL) = (
	'POST /v1/payment_intents',
	'POST /v1/payment_intents/:id/confirm',
	'POST /v1/payment_intents/:id/cancel');
my ($LIST, $RETRIEVE) =
  ('GET /v1/payment_intents', 'GET /v1/payment_intents/:id');

sub status
{
	my ($id, $operation) = @_;
	my $request = $server->request($id, $operation);

	return $request ? $request->{status} : 'none';
}

sub becomes
{
	my ($id, $operation, $wanted, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	eventually(sub { status($id, $operation) }, $wanted, $name);
	return $server->request($id, $operation);
}

# Bookkeeping that a superuser may change: look now, and pretend that what
# became unknown did so long ago, so that nothing can be under way any more.
sub look_up
{
	my ($id, %options) = @_;
	my $ago = $options{old} ? "now() - interval '1 h'" : 'finished_at';

	$server->sql("UPDATE stripe_lifecycle.api_requests
		SET lookup_at = now(), finished_at = $ago
		WHERE payment_id = '$id' AND status = 'unknown'");
	$server->sql('SELECT stripe_lifecycle.wake_worker()');
	return;
}

sub lookups
{
	my ($id, $operation) = @_;

	return
	  grep { $_->{method} eq 'GET' } @{ $server->attempts($id, $operation) };
}

# Pages of the list of PaymentIntents behind the first one, as Stripe saw them:
# on record here a call is a little earlier.
sub next_pages
{
	return grep {
		$_->{path} eq '/v1/payment_intents' && $_->{method} eq 'GET'
		  && $_->{body} =~ /starting_after/
	} @{ $stripe->ledger->{requests} };
}

sub sendings
{
	my ($id, $operation) = @_;

	return scalar $stripe->arrivals(
		$server->request($id, $operation)->{idempotency_key});
}

# A payment whose PaymentIntent is there.
sub ready_payment
{
	my $id = $server->create_payment(@_);
	my $give_up = time + $StripeLifecycle::DEADLINE;

	while (status($id, 'create') ne 'succeeded')
	{
		die 'no PaymentIntent' if time > $give_up;
		sleep 0.02;
	}
	return $id;
}

my %pay = (
	visa => '{"payment_method": "pm_card_visa", "return_url": "https://example.com/"}',
	declined =>
	  '{"payment_method": "pm_card_chargeDeclined", "return_url": "https://example.com/"}');

#
# A creation
#

# Stripe did it, answered 500, and answers that to the same key for ever.
$stripe->fault(kind => '500_after');
my $id = $server->create_payment;
my $request =
  becomes($id, 'create', 'unknown', 'a saved 500 leaves its request unknown');
is(sendings($id, 'create'), 2, 'as soon as it is replayed');
ok($server->attempts($id)->[1]{idempotent_replayed}, 'which is recorded');
like($request->{lookup_at}, qr/^\d/, 'a look-up is planned');
is( $server->value(
		"SELECT lookup_at - finished_at FROM stripe_lifecycle.api_requests
		  WHERE id = $request->{id}"),
	'00:00:10',
	'in ten seconds');

look_up($id);
$request = becomes($id, 'create', 'succeeded', 'found in the list: succeeded');
my @intents = $stripe->intents_of($id);
is(scalar @intents, 1, 'there is one PaymentIntent');
my $payment = $server->payment($id);
is( "$payment->{payment_intent_id} $payment->{client_secret}",
	"$intents[0]{id} $intents[0]{client_secret}",
	'it is adopted, with its client_secret');
is($payment->{state}, 'created', 'the state is for events');
is(sendings($id, 'create'), 2, 'nothing was sent again');
my ($lookup) = lookups($id);
is("$lookup->{attempt} $lookup->{http_status} $lookup->{result}",
	'3 200 succeeded', 'the look-up is recorded as a GET');
is($request->{lookup_at}, undef, 'and no further one is planned');

# The same, but an event is faster.
$stripe->webhooks(mode => 'pull');
$server->deliver_webhooks($stripe);
$stripe->fault(kind => '500_after');
$id = $server->create_payment;
becomes($id, 'create', 'unknown', 'unknown, and an event comes');
$server->deliver_webhooks($stripe);
$request = becomes($id, 'create', 'succeeded', 'an event triggers the look-up');
ok( $server->value(
		"SELECT client_secret IS NOT NULL FROM stripe_lifecycle.payments WHERE id = '$id'"
	) eq 't',
	'so that the client_secret is soon there');
is( (grep { $_->{path} =~ m{^/v1/payment_intents/pi_} && $_->{method} eq 'GET' }
		  @{ $stripe->ledger->{requests} }) + 0,
	1,
	'the PaymentIntent was retrieved');
cmp_ok(
	$server->value("SELECT extract(epoch FROM finished_at - created_at)
		FROM stripe_lifecycle.api_requests WHERE id = $request->{id}"),
	'<', 10, 'well before its time');

# Stripe did not do it, and says 500 for ever.
$stripe->fault(kind => '500', save => JSON::PP::true);
$id = $server->create_payment;
$server->sql("SELECT stripe_lifecycle.confirm_payment('$id', '$pay{visa}')");
becomes($id, 'create', 'unknown', 'a saved 500 and nothing done: unknown');
look_up($id);
eventually(sub { scalar lookups($id) }, 1, 'looked up early');
eventually(
	sub { (lookups($id))[0]{finished} // '' },
	qr/\d/, 'and answered');
is(status($id, 'create'), 'unknown',
	'what is not there soon after is no evidence');
look_up($id, old => 1);
$request = becomes($id, 'create', 'rejected', 'what is not there later is');
is("$request->{last_error}{source} $request->{last_error}{code}",
	'lookup not_created', 'the request says so');
is($server->payment($id, 'last_error')->{code},
	'not_created', 'and so does the payment');
is(status($id, 'confirm'), 'rejected', 'what waited for it is refused, too');
is(scalar $stripe->intents_of($id), 0, 'there is no PaymentIntent');
is(sendings($id, 'create'), 2, 'nothing was sent again');

# Older than Stripe's memory, after a reset and after half an answer.
foreach my $kind (qw(rst_after truncate))
{
	$server->configure('stripe_lifecycle.retry_base_delay = 2s');
	$stripe->fault(kind => $kind, count => -1);
	$id = $server->create_payment;
	eventually(
		sub { $server->attempts($id)->[0]{result} },
		'retry', "$kind: to be sent again");
	my $sendings = sendings($id, 'create');
	$server->sql("UPDATE stripe_lifecycle.api_requests
		SET first_sent_at = now() - interval '23 h' WHERE payment_id = '$id'");
	$request =
	  becomes($id, 'create', 'unknown', "$kind: not after 23 hours");
	is($request->{last_error}{code},
		'key_expired', "$kind: because the key may be forgotten");
	look_up($id);
	becomes($id, 'create', 'succeeded', "$kind: it is found");
	is(sendings($id, 'create'), $sendings, "$kind: it was not sent again");
	is(scalar $stripe->intents_of($id), 1, "$kind: one PaymentIntent");
	$stripe->no_faults;
}
$server->configure('stripe_lifecycle.retry_base_delay = 40');

# The same after an outage, with more of them than are claimed at once.
$server->sql("SELECT stripe_lifecycle.pause_worker()");
$server->sql("SELECT stripe_lifecycle.create_payment(100, 'eur', 'outage-' || n)
	FROM generate_series(1, 100) n");
$server->sql("UPDATE stripe_lifecycle.api_requests
	SET first_sent_at = now() - interval '23 h', attempts = 1
	WHERE status = 'queued' AND id % 10 <> 0");
my $sent = $stripe->count('requests');
$server->sql("SELECT stripe_lifecycle.resume_worker()");
eventually(
	sub {
		$server->value("SELECT string_agg(DISTINCT concat_ws(' ', id % 10 = 0, status, last_error ->> 'code'), ', ')
			FROM stripe_lifecycle.api_requests r WHERE EXISTS (SELECT FROM stripe_lifecycle.payments p
				WHERE p.id = r.payment_id AND p.idempotency_key LIKE 'outage-%')");
	},
	'f unknown key_expired, t succeeded',
	'of a hundred, only those that may be are sent');
is($stripe->count('requests') - $sent, 10, 'not one of the others');
$server->sql("UPDATE stripe_lifecycle.api_requests SET lookup_at = 'infinity'
	WHERE status = 'unknown' AND last_error ->> 'code' = 'key_expired'");

# The key was changed meanwhile: a 401 says nothing of what was sent before.
$stripe->fault({ kind => 'truncate', count => 1 },
	{ kind => '401', count => -1 });
$id = $server->create_payment;
becomes($id, 'create', 'unknown', '401 after a doubtful attempt: unknown');
$stripe->no_faults;

# Looking up can go wrong as well.
$stripe->fault(map { { route => $LIST, kind => $_, count => 1 } }
	  qw(500 truncate 401 429 503));
foreach my $n (1 .. 5)
{
	look_up($id);
	eventually(sub { scalar grep { $_->{finished} } lookups($id) },
		$n, "look-up $n fails");
}
is(status($id, 'create'), 'unknown', 'it remains unknown');
is( join(' ', map { $_->{result} } lookups($id)),
	'retry retry rejected retry retry',
	'each is recorded');
ok( $server->value(
		"SELECT lookup_at > now() + interval '5 s'
		   FROM stripe_lifecycle.api_requests
		  WHERE payment_id = '$id' AND operation = 'create'") eq 't',
	'the next one is later');
look_up($id);
becomes($id, 'create', 'succeeded', 'and then it is found');
$stripe->no_faults;

# A long list; the worker dies between two pages.
$stripe->fault(kind => '500_after');
$id = $server->create_payment;
becomes($id, 'create', 'unknown', 'many others were made after it');

# not before they are there, however long that takes
$server->sql("UPDATE stripe_lifecycle.api_requests SET lookup_at = now() + interval '1 h'
	WHERE payment_id = '$id'");
$stripe->api('payment_intents', 'amount=100&currency=eur') foreach 1 .. 210;
$stripe->fault(
	route => $LIST,
	kind => 'delay',
	delay_ms => 3000,
	skip => 1,
	count => 1);
look_up($id);
eventually(
	sub { $server->request($id, 'create')->{lookup_cursor} // '' },
	qr/^-?pi_/, 'how far the search has come is stored');
eventually(sub { scalar next_pages() }, 1, 'the next page is under way');
my $pid = $server->value("SELECT pid FROM pg_stat_activity
	WHERE backend_type = 'stripe_lifecycle worker'");
$server->disconnect;
kill 'KILL', $pid;
ok($server->node->poll_query_until('postgres', 'SELECT true'),
	'the server is back after a crash');
becomes($id, 'create', 'succeeded', 'the search goes on and finds it');
my @pages = next_pages();
is(scalar @pages, 3, 'from where it was');
is($pages[0]{body}, $pages[1]{body}, 'with the page that was lost');
is((lookups($id))[1]{result}, 'lost', 'which is recorded as lost');

# Without room for our mark nothing can be searched for.
$stripe->fault(kind => '500_after');
$id = $server->create_payment(
	metadata => { map { ("k$_" => '[stripe_lifecycle_payment_id]=') } 1 .. 50 });
becomes($id, 'create', 'unknown', 'fifty keys of metadata: unknown');
look_up($id, old => 1);
eventually(
	sub { $server->request($id, 'create')->{lookup_at} },
	'infinity', 'no look-up could tell');
is(scalar lookups($id), 0, 'so none is made');

#
# A confirmation
#

$stripe->fault(route => $CONFIRM, kind => '500_after');
$id = ready_payment();
$server->sql("SELECT stripe_lifecycle.confirm_payment('$id', '$pay{visa}')");
becomes($id, 'confirm', 'unknown', 'confirmed, but who knows');
look_up($id);
becomes($id, 'confirm', 'succeeded', 'the status tells: confirmed');
is($server->state($id), 'created', 'the state waits for the event');
$server->deliver_webhooks($stripe);
is($server->state($id), 'succeeded', 'which comes');

$stripe->fault(route => $CONFIRM, kind => '500_after');
$id = ready_payment(decline_policy => 'retry');
$server->sql("SELECT stripe_lifecycle.confirm_payment('$id', '$pay{declined}')");
becomes($id, 'confirm', 'unknown', 'declined, but who knows');
look_up($id);
$request = becomes($id, 'confirm', 'rejected', 'the status tells: declined');
is($request->{last_error}{decline_code},
	'generic_decline', 'with the reason');
is($server->payment($id, 'last_error')->{decline_code},
	'generic_decline', 'which the payment shows');

$stripe->fault(route => $CONFIRM, kind => '500', save => JSON::PP::true);
$id = ready_payment();
$server->sql("SELECT stripe_lifecycle.confirm_payment('$id', '$pay{visa}')");
becomes($id, 'confirm', 'unknown', 'not confirmed, but who knows');
look_up($id);
eventually(
	sub { scalar grep { $_->{finished} } lookups($id, 'confirm') },
	1, 'looked up early');
is(status($id, 'confirm'), 'unknown', 'it could still be under way');
look_up($id, old => 1);
$request = becomes($id, 'confirm', 'rejected', 'later it could not');
is($request->{last_error}{code}, 'not_executed', 'and was not');
$server->sql("SELECT stripe_lifecycle.confirm_payment('$id', '$pay{visa}')");
becomes($id, 'confirm', 'succeeded', 'another one has a key of its own');

#
# A cancellation
#

$stripe->fault(route => $CANCEL, kind => '500_after');
$id = ready_payment();
$server->sql("SELECT stripe_lifecycle.cancel_payment('$id')");
becomes($id, 'cancel', 'unknown', 'canceled, but who knows');
look_up($id);
becomes($id, 'cancel', 'succeeded', 'the status tells: canceled');

$stripe->fault(route => $CANCEL, kind => '500', save => JSON::PP::true);
$id = ready_payment();
$server->sql("SELECT stripe_lifecycle.cancel_payment('$id')");
becomes($id, 'cancel', 'unknown', 'not canceled, but who knows');
look_up($id, old => 1);
$request = becomes($id, 'cancel', 'rejected', 'the status tells: not canceled');
is($request->{last_error}{code}, 'not_executed', 'it was not carried out');
is( $server->value(
		"SELECT count(*) FROM stripe_lifecycle.api_requests
		  WHERE payment_id = '$id' AND operation = 'cancel'"),
	1,
	'whoever wanted it may ask again');

$stripe->fault(route => $CANCEL, kind => '500', save => JSON::PP::true);
$id = ready_payment();
$server->sql("SELECT stripe_lifecycle.cancel_payment('$id')");
becomes($id, 'cancel', 'unknown', 'paid meanwhile');
$stripe->pay($server->payment($id, 'client_secret'), 'pm_card_visa');
look_up($id);
$request = becomes($id, 'cancel', 'rejected', 'the status tells: paid');
is($request->{last_error}{code}, 'succeeded', 'too late to cancel');
$server->deliver_webhooks($stripe);

# The one that the extension wants itself.
$stripe->fault(route => $CANCEL, kind => '500', save => JSON::PP::true);
$id = ready_payment();
$stripe->pay($server->payment($id, 'client_secret'), 'pm_card_chargeDeclined');
$server->deliver_webhooks($stripe);
is($server->state($id), 'failed', 'a decline fails the payment');
becomes($id, 'cancel', 'unknown', 'its cancellation got lost');
look_up($id, old => 1);
eventually(
	sub {
		$server->value(
			"SELECT string_agg(idempotency_key || ' ' || status, ', ' ORDER BY id)
			  FROM stripe_lifecycle.api_requests
			 WHERE payment_id = '$id' AND operation = 'cancel'");
	},
	"stripe_lifecycle-$id-cancel-1 rejected, stripe_lifecycle-$id-cancel-2 succeeded",
	'so another one is made, with another key');
is($stripe->intent($server->payment($id, 'payment_intent_id'))->{status},
	'canceled', 'and Stripe agrees');

#
# Set aside: the answer could not be stored
#

$server->sql(q{
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE 'spoiled'; END$$;
CREATE TRIGGER spoil BEFORE UPDATE ON stripe_lifecycle.payments
	FOR EACH ROW EXECUTE FUNCTION spoil()});
$id = $server->create_payment;
$request = becomes($id, 'create', 'unknown', 'an answer that cannot be stored');
is($request->{last_error}{source}, 'database', 'is set aside');
$server->sql('DROP TRIGGER spoil ON stripe_lifecycle.payments');
look_up($id);
becomes($id, 'create', 'succeeded', 'and looked up when it can be');

# Whatever was looked up, nothing was made twice.
is($stripe->count('duplicated_payments'), 0, 'no payment has two PaymentIntents');
$server->audit_is_sound;
$server->stop;
unlike($server->log_text, qr/PANIC|TRAP|segfault/, 'no process crashed');

done_testing();
