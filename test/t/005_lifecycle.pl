
# Payments from creation to their end, with the customer's browser, Stripe, its
# webhooks and the worker all taking part, and the webhooks early, late, twice
# and in any order.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use IPC::Run;
use JSON::PP ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use StripeLifecycle;

my $stripe = StripeLifecycle::StandIn->new(seed => 5);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
stripe_lifecycle.worker_linger = 60s
stripe_lifecycle.retry_base_delay = 50
stripe_lifecycle.retry_max_delay = 200
});

srand(5);

# A payment ready for the customer's card: its id, its PaymentIntent's and the
# client_secret.
sub ready_payment
{
	my (%arguments) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $id = $server->create_payment(%arguments);
	my $intent = $server->intent_known($id);

	return ($id, $intent, $server->payment($id, 'client_secret'));
}

# The way a payment went, as its audit trail has it.
sub trail
{
	my ($id) = @_;

	return $server->value(
		"SELECT string_agg(to_state::text, ' ' ORDER BY seq)
		   FROM stripe_lifecycle.payment_transitions WHERE payment_id = '$id'");
}

my ($id, $intent, $secret, $payment);

#
# A card that pays
#

($id, $intent, $secret) = ready_payment(amount => 4999);
$stripe->pay($secret, 'pm_card_visa');
is($server->state($id), 'created', 'paying alone moves nothing');
is($server->deliver_webhooks($stripe, qr/succeeded/),
	'applied', 'the webhook does');
$payment = $server->payment($id);
is($payment->{state}, 'succeeded', '4242 pays');
is($payment->{amount_received}, 4999, 'the whole amount');
is($payment->{latest_charge}, $stripe->intent($intent)->{latest_charge},
	'by this charge');
is($payment->{client_secret}, undef, 'the client_secret is erased');
ok($payment->{finished_at}, 'the time is kept');
is(trail($id), 'created succeeded', 'and the trail');
fails_with($server->error("SELECT stripe_lifecycle.cancel_payment('$id')"),
	'SL018', qr/succeeded/, 'what has succeeded cannot be canceled');

#
# 3-D Secure
#

($id, $intent, $secret) = ready_payment();
$stripe->pay($secret, 'pm_card_threeDSecure2Required');
$server->deliver_webhooks($stripe);
is($server->state($id), 'requires_action', '3DS asks the customer');
$stripe->authenticate($intent, 'succeed');
$server->deliver_webhooks($stripe);
is(trail($id), 'created requires_action succeeded',
	'who passes the challenge pays');

($id, $intent, $secret) = ready_payment();
$stripe->pay($secret, 'pm_card_threeDSecure2Required');
$stripe->authenticate($intent, 'fail');
$server->deliver_webhooks($stripe);
like(trail($id), qr/^created (requires_action )?failed$/,
	'who fails the challenge fails under policy final');

#
# A decline under policy final: the worker cancels the PaymentIntent
#

($id, $intent, $secret) = ready_payment();
$stripe->pay($secret, 'pm_card_chargeDeclinedInsufficientFunds');
$server->deliver_webhooks($stripe);
$payment = $server->payment($id);
is($payment->{state}, 'failed', 'a decline fails the payment');
is($payment->{last_error}{decline_code}, 'insufficient_funds', 'with its reason');
is($payment->{decline_count}, 1, 'and is counted');
eventually(sub { $stripe->intent($intent)->{status} },
	'canceled', 'the worker cancels the PaymentIntent');
eventually(sub { $server->request($id, 'cancel')->{status} },
	'succeeded', 'and knows it');
$server->deliver_webhooks($stripe);
is( $server->value(
		"SELECT outcome FROM stripe_lifecycle.webhook_events
		  WHERE payment_id = '$id' AND type = 'payment_intent.canceled'"),
	'recorded',
	'the cancellation\'s own event changes no more');
is(trail($id), 'created failed', 'the payment failed once');

# A success that came before the cancellation wins. The customer pays while the
# decline is still on its way to us.
($id, $intent, $secret) = ready_payment();
$stripe->pay($secret, 'pm_card_chargeDeclined');
my @declined = $stripe->pull;
$stripe->pay($secret, 'pm_card_visa');
$server->ingest($_->{bytes}, $_->{header}) foreach @declined;
is($server->state($id), 'failed', 'the decline arrives first');
eventually(sub { $server->request($id, 'cancel')->{status} },
	'rejected', 'what is paid can no longer be canceled');
$server->deliver_webhooks($stripe);
$payment = $server->payment($id);
is($payment->{state}, 'succeeded', 'money that came wins');
is($payment->{amount_received}, 2000, 'and is there');
is(trail($id), 'created failed succeeded', 'the trail shows both');
like(
	$server->value(
		"SELECT note FROM stripe_lifecycle.payment_transitions
		  WHERE payment_id = '$id' AND to_state = 'succeeded'"),
	qr/had failed/,
	'and notes it');

#
# Policy retry
#

($id, $intent, $secret) = ready_payment(decline_policy => 'retry');
$stripe->pay($secret, 'pm_card_threeDSecureRequiredChargeDeclined');
$server->deliver_webhooks($stripe);
is($server->state($id), 'requires_action', 'policy retry: 3DS first');
sleep 1 - (time - int time);	# Stripe's times are whole seconds
$stripe->authenticate($intent, 'succeed');
$server->deliver_webhooks($stripe);
$payment = $server->payment($id);
is($payment->{state}, 'created', 'policy retry: after a decline, once more');
is($payment->{decline_count}, 1, 'policy retry: it is counted');
is($server->request($id, 'cancel'), undef, 'policy retry: nothing is canceled');
is($payment->{client_secret}, $secret, 'policy retry: the secret still serves');
$stripe->pay($secret, 'pm_card_visa');
$server->deliver_webhooks($stripe);
is(trail($id), 'created requires_action created succeeded',
	'policy retry: another card pays');

($id, $intent) = ready_payment(decline_policy => 'retry');
$server->sql(
	"SELECT stripe_lifecycle.cancel_payment('$id', 'abandoned')");
eventually(sub { $stripe->intent($intent)->{status} },
	'canceled', 'cancel_payment cancels at Stripe');
is($server->state($id), 'created', 'and moves nothing itself');
$server->deliver_webhooks($stripe);
$payment = $server->payment($id);
is("$payment->{state} $payment->{cancellation_reason}",
	'failed abandoned', 'the event does');

#
# Manual capture
#

($id, $intent, $secret) = ready_payment(capture_method => 'manual');
$stripe->pay($secret, 'pm_card_visa');
$server->deliver_webhooks($stripe);
$payment = $server->payment($id);
is("$payment->{state} $payment->{amount_capturable}",
	'processing 2000', 'manual capture: authorised');
$stripe->api("payment_intents/$intent/capture", '');
$server->deliver_webhooks($stripe);
$payment = $server->payment($id);
is("$payment->{state} $payment->{amount_received}",
	'succeeded 2000', 'manual capture: captured');

($id, $intent, $secret) = ready_payment(capture_method => 'manual');
$stripe->pay($secret, 'pm_card_visa');
$stripe->control('POST', "payment_intents/$intent/expire");
$server->deliver_webhooks($stripe);
is($server->state($id), 'failed', 'manual capture: the authorisation lapsed');

#
# A bank debit
#

$id = $server->create_payment(
	currency => 'usd',
	params => {
		payment_method_types => ['us_bank_account'],
		confirm => JSON::PP::true,
		payment_method => 'pm_usBankAccount_success',
		mandate_data =>
		  { customer_acceptance => { type => 'offline', offline => {} } }
	});
$intent = $server->intent_known($id, 'a debit confirmed at creation');
$server->deliver_webhooks($stripe);
is($server->state($id), 'processing', 'a bank debit takes its time');
$stripe->control('POST', "payment_intents/$intent/settle");
$server->deliver_webhooks($stripe);
is(trail($id), 'created processing succeeded', 'and arrives');

#
# Events before the worker has stored the id
#

# Stripe made the PaymentIntent, and its answer takes a while.
$stripe->fault(kind => 'delay', delay_ms => 1500);
$id = $server->create_payment(
	params => {
		confirm => JSON::PP::true,
		payment_method => 'pm_card_visa',
		return_url => 'https://example.com/'
	});
eventually(
	sub { scalar $stripe->intents_of($id) },
	1, 'early events: Stripe has the PaymentIntent');
is($server->payment($id, 'payment_intent_id'),
	undef, 'early events: its id is not stored yet');
is($server->deliver_webhooks($stripe, qr/succeeded/),
	'applied', 'early events: they find their payment all the same');
is($server->state($id), 'succeeded', 'early events: and move it');
eventually(sub { $server->request($id)->{status} },
	'succeeded', 'early events: then comes the answer');
$payment = $server->payment($id);
is($payment->{payment_intent_id}, ($stripe->intents_of($id))[0]{id},
	'early events: of the same PaymentIntent');
is($payment->{client_secret}, undef,
	'early events: a payment that has ended keeps no client_secret');
is(trail($id), 'created succeeded', 'early events: once');

# The same, of a PaymentIntent that does not say whose it is: parked until the
# answer comes.
$stripe->fault(kind => 'delay', delay_ms => 1500);
$id = $server->create_payment;
eventually(
	sub { scalar $stripe->intents_of($id) },
	1, 'anonymous events: Stripe has the PaymentIntent');
my ($row) = $stripe->intents_of($id);
$stripe->api("payment_intents/$row->{id}",
	'metadata[stripe_lifecycle_payment_id]=');
$stripe->pull;	# the event of the creation still said it
$stripe->pay($row->{client_secret}, 'pm_card_visa');
is($server->deliver_webhooks($stripe, qr/^payment_intent.succeeded/),
	'unmatched', 'anonymous events: are parked');
eventually(sub { $server->state($id) },
	'succeeded', 'anonymous events: and applied when the answer comes');
is(trail($id), 'created succeeded', 'anonymous events: once');

#
# Any order, any number
#

# Each payment's events in every order that matters, all of them twice.
$stripe->webhooks(types => ['payment_intent.*'], mode => 'hold');
my %ends;
foreach my $round (1 .. 12)
{
	($id, $intent, $secret) =
	  ready_payment(decline_policy => $round % 2 ? 'retry' : 'final');
	$stripe->pay($secret, 'pm_card_threeDSecureRequiredChargeDeclined');
	$stripe->authenticate($intent, 'succeed');
	if ($round % 4 < 2)
	{
		$stripe->pay($secret, 'pm_card_visa');
		$ends{$id} = 'succeeded';
	}
	else
	{
		$stripe->api("payment_intents/$intent/cancel", '');
		$ends{$id} = 'failed';
	}
}
is(scalar $stripe->pull, 0, 'held webhooks do not come');
$stripe->webhooks(mode => 'pull', shuffle => JSON::PP::true);
my @deliveries;
while (my @more = $stripe->pull)
{
	push @deliveries, @more;
}
my %outcomes;
foreach (shuffle(@deliveries, @deliveries))
{
	$outcomes{ $server->ingest($_->{bytes}, $_->{header}) }++;
}
is($outcomes{duplicate}, scalar @deliveries, 'the second of each is a duplicate');
is($outcomes{conflict}, undef, 'nothing contradicts');
is_deeply({ map { $_ => $server->state($_) } keys %ends },
	\%ends, 'whatever the order, a payment ends as at Stripe');
eventually(
	sub {
		$server->value(
			q{SELECT count(*) FROM stripe_lifecycle.api_requests
			   WHERE status IN ('queued', 'in_flight')});
	},
	0, 'the cancellations are settled');
$server->deliver_webhooks($stripe);
is_deeply({ map { $_ => $server->state($_) } keys %ends },
	\%ends, 'and change nothing');

#
# payment_status(wait)
#

($id, $intent, $secret) = ready_payment();
my $started = time;
my $waiter = IPC::Run::start(
	[
		$server->node->installed_command('psql'), '-XAtq',
		'-d', $server->node->connstr('postgres'),
		'-c', "SELECT state FROM stripe_lifecycle.payment_status('$id', '30 s')"
	],
	'>', \my $answer);
eventually(
	sub {
		$server->value(
			q{SELECT count(*) FROM pg_stat_activity
			   WHERE query LIKE '%payment_status%30 s%'
			     AND pid <> pg_backend_pid() AND state = 'active'});
	},
	1, 'a frontend waits');
$stripe->pay($secret, 'pm_card_visa');
$server->deliver_webhooks($stripe);
$waiter->finish;
chomp $answer;
is($answer, 'succeeded', 'payment_status answers what came');
cmp_ok(time - $started, '<', 20, 'as soon as it came');
note(sprintf 'payment_status with wait: %.0f ms in all',
	1000 * (time - $started));
$started = time;
$server->value("SELECT stripe_lifecycle.payment_status('$id', '30 s')");
cmp_ok(time - $started, '<', 20, 'at once when the payment has ended');
($id) = ready_payment();
$started = time;
$server->value("SELECT stripe_lifecycle.payment_status('$id', '0.3 s')");
cmp_ok(time - $started, '>=', 0.3, 'or when the time is up');

$server->audit_is_sound;
my $ledger = $stripe->ledger;
is_deeply(
	[ grep { @$_ != 1 } values %{ $ledger->{payment_intents_by_payment} } ],
	[],
	'no payment has two PaymentIntents');
$server->stop;
unlike($server->log_text, qr/PANIC|TRAP|segfault|terminated by signal/,
	'no process crashed');

done_testing();
