
# Calls that go wrong: what is retried is the same request each time and makes
# one PaymentIntent, however often; what Stripe refuses is not retried and is
# there for the caller to see.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StripeLifecycle;

my $stripe = StripeLifecycle::StandIn->new(seed => 2);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
stripe_lifecycle.worker_linger = 60s
stripe_lifecycle.connect_timeout = 2s
stripe_lifecycle.request_timeout = 20s
stripe_lifecycle.retry_base_delay = 40
stripe_lifecycle.retry_max_delay = 2s
});

# Every attempt was the same request, is recorded, and only the last one
# counted. libcurl repeats a request itself when a connection that it re-uses
# turns out to be dead, so more of them can arrive than there are attempts.
sub is_one_request
{
	my ($id, $result, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $request = $server->request($id, 'create');
	my @arrivals = $stripe->arrivals($request->{idempotency_key});
	my $attempts = $server->attempts($id);
	my @problems;

	push @problems, 'the bytes differ'
	  if grep { $_->{body} ne $request->{body} } @arrivals;
	push @problems, "$request->{attempts} attempts, " . @$attempts . ' rows'
	  if $request->{attempts} != @$attempts;
	push @problems, "attempt $_ is missing"
	  foreach grep { $attempts->[ $_ - 1 ]{attempt} != $_ } 1 .. @$attempts;
	push @problems, 'an attempt without an end'
	  if grep { !defined $_->{finished} } @$attempts;
	push @problems, "attempt $_->{attempt}: $_->{result}"
	  foreach grep {
		$_->{result} ne ($_->{attempt} == @$attempts ? $result : 'retry')
	  } @$attempts;
	push @problems, "an attempt without an error"
	  if grep { $_->{result} ne 'succeeded' && !$_->{error} } @$attempts;
	is_deeply(\@problems, [], $name)
	  or diag(StripeLifecycle::show($attempts));
	return ($attempts, @arrivals);
}

# Creates a payment while requests suffer, and waits until it is known.
sub survives
{
	my ($name, @faults) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$stripe->fault(@faults);
	my $id = $server->create_payment;
	my $intent = $server->intent_known($id, "$name: it gets there");
	my ($attempts, @arrivals) =
	  is_one_request($id, 'succeeded', "$name: one request, repeated");
	my @intents = $stripe->intents_of($id);

	is("@{[map { $_->{id} } @intents]}", $intent, "$name: one PaymentIntent");
	ok(@arrivals > 1, "$name: was really met");
	is($server->payment($id, 'last_error'), undef, "$name: no error is left");
	$stripe->no_faults;
	return ($id, $attempts, @arrivals);
}

#
# What is tried again
#

# Each three times, so that at least one is met by an attempt on a connection
# of its own, which libcurl does not repeat.
survives($_, kind => $_, count => 3)
  foreach qw(drop_before drop_after rst_before rst_after truncate
  409 429 503);
survives('500', kind => '500', count => 2, save => JSON::PP::false);
survives('a storm', map { { kind => $_ } }
	  qw(503 drop_after 409 rst_before truncate 429 rst_after drop_before));

my ($id, $attempts, @arrivals) = survives(
	'truncate once more',
	kind => 'truncate',
	count => 1);
ok($attempts->[-1]{idempotent_replayed},
	'an answer from Stripe\'s memory is recorded as one');
ok(!$attempts->[0]{idempotent_replayed}, 'and others are not');

# Nobody listens.
$stripe->stop;
$id = $server->create_payment;
eventually(
	sub { $server->attempts($id)->[1]{error} },
	qr/connect/i, 'connection refused: is recorded');
$stripe->start;
$server->intent_known($id, 'connection refused: it gets there later');
is_one_request($id, 'succeeded', 'connection refused: one request');
is(scalar $stripe->intents_of($id), 1, 'connection refused: one PaymentIntent');

# No answer in time; Stripe is still at work when the same key comes again,
# and says so.
$server->configure('stripe_lifecycle.request_timeout = 300ms');
($id, $attempts, @arrivals) =
  survives('timeout', kind => 'delay', delay_ms => 1000);
like($attempts->[0]{error}, qr/timeout.*answer/, 'timeout: is recorded');
is($attempts->[0]{http_status}, undef, 'timeout: there was no status');
ok((grep { ($_->{http_status} // 0) == 409 } @$attempts),
	'timeout: 409 while the first one is still at work');
$server->configure('stripe_lifecycle.request_timeout = 20s');

#
# Pauses. Only lower bounds: a busy machine makes any of them longer.
#

sub pauses
{
	my ($attempts) = @_;

	return
	  map { $attempts->[ $_ + 1 ]{started} - $attempts->[$_]{finished} }
	  0 .. $#$attempts - 1;
}

($id, $attempts) = survives('backoff', kind => '503', count => 6);
my @pauses = pauses($attempts);
my @too_short =
  grep { $pauses[$_] < 0.040 * ($_ ? 2**($_ - 1) : 1) } 0 .. $#pauses;
is("@too_short", '', 'pauses double, give or take half')
  or diag("@pauses");
note(sprintf 'pauses after 503: %s ms',
	join(' ', map { sprintf '%.0f', 1000 * $_ } @pauses));

($id, $attempts) = survives(
	'Retry-After',
	kind => '429',
	headers => { 'Retry-After' => '1' });
cmp_ok((pauses($attempts))[0], '>=', 1, 'Retry-After is waited for');

#
# What is not tried again
#

my %errors = (
	400 => 'An injected refusal.',
	401 => 'Invalid API Key provided (injected).',
	402 => 'Your card was declined (injected).',
	403 => 'This key lacks the permission (injected).',
	404 => 'No such resource (injected).');
foreach my $status (sort keys %errors)
{
	$stripe->fault(kind => $status, count => -1);
	$id = $server->create_payment;
	eventually(sub { $server->request($id)->{status} },
		'rejected', "$status: is final");
	is_one_request($id, 'rejected', "$status: one request");
	is($server->request($id)->{attempts}, 1, "$status: is not tried again");

	like(
		$server->error("SELECT stripe_lifecycle.cancel_payment('$id')")->{text},
		qr/cannot cancel a payment that has no PaymentIntent/,
		"$status: nothing waits for a PaymentIntent that will never be");

	my $shown = $server->row(
		"SELECT * FROM stripe_lifecycle.payment_status('$id')");
	is( "$shown->{state} $shown->{request_status}",
		'created rejected',
		"$status: the payment stays created");
	is($shown->{last_error}{message},
		$errors{$status}, "$status: payment_status shows Stripe's words");
	is("$shown->{last_error}{source} $shown->{last_error}{http_status}",
		"api $status", "$status: and where they came from");
	is($server->attempts($id)->[0]{http_status},
		$status, "$status: the call is recorded");
	is(scalar $stripe->intents_of($id), 0, "$status: no PaymentIntent");
	$stripe->no_faults;
}

# Stripe's header overrules what the status says.
survives(
	'Stripe-Should-Retry: true',
	kind => '400',
	count => 2,
	headers => { 'Stripe-Should-Retry' => 'true' });

$stripe->fault(
	kind => '503',
	count => -1,
	headers => { 'Stripe-Should-Retry' => 'false' });
$id = $server->create_payment;
eventually(sub { $server->request($id)->{status} },
	'unknown', 'Stripe-Should-Retry: false on 503 leaves it unknown');
is_one_request($id, 'unknown', 'Stripe-Should-Retry: false: one request');
is($server->request($id)->{attempts},
	1, 'Stripe-Should-Retry: false is obeyed');
$stripe->no_faults;

# A 500 that Stripe remembers is replayed however often it is asked; a wrong key
# says nothing of what an earlier attempt with a good one did. In both cases the
# PaymentIntent exists, nothing is sent blindly, and the webhook tells.
my %doubts = (
	'a remembered 500' => [ { kind => '500_after' } ],
	'401 after a lost answer' =>
	  [ { kind => 'truncate' }, { kind => '401', count => -1 } ]);
foreach my $name (sort keys %doubts)
{
	$stripe->fault(@{ $doubts{$name} });
	$id = $server->create_payment;
	eventually(sub { $server->request($id)->{status} },
		'unknown', "$name: leaves the request unknown");
	is_one_request($id, 'unknown', "$name: one request");
	is($server->request($id)->{attempts}, 2, "$name: tried again once");
	$stripe->no_faults;

	my @intents = $stripe->intents_of($id);
	is(scalar @intents, 1, "$name: one PaymentIntent");
	$server->deliver_webhooks($stripe);
	is($server->payment($id, 'payment_intent_id'),
		$intents[0]{id}, "$name: the webhook links it");
	is($server->state($id), 'created', "$name: and moves nothing");
}

#
# Create and confirm at once
#

$id = $server->create_payment(
	decline_policy => 'retry',
	params => {
		confirm => JSON::PP::true,
		payment_method => 'pm_card_chargeDeclined',
		return_url => 'https://example.com/done'
	});
eventually(sub { $server->request($id)->{status} },
	'rejected', 'a decline is final for its request');
my @intents = $stripe->intents_of($id);
is(scalar @intents, 1, 'a declined confirmation made a PaymentIntent');
my $payment = $server->payment($id);
is($payment->{payment_intent_id}, $intents[0]{id}, 'which is stored');
is($payment->{client_secret}, $intents[0]{client_secret},
	'with its client_secret');
is($payment->{last_error}{decline_code}, 'generic_decline',
	'and the decline is shown');
is($payment->{state}, 'created', 'the state waits for the event');

# A later confirmation has a key of its own.
$server->sql("SELECT stripe_lifecycle.confirm_payment('$id',
	'{\"payment_method\": \"pm_card_visa\", \"return_url\": \"https://example.com/\"}')");
eventually(sub { $server->request($id)->{status} },
	'succeeded', 'the customer may try another card');
is( $server->request($id)->{idempotency_key},
	"stripe_lifecycle-$id-confirm-1",
	'under another key');
$server->deliver_webhooks($stripe);
is($server->state($id), 'succeeded', 'and pay');

# What the ledger and the outbox have in common: every call, and nothing else.
my %keys = map { $_->{idempotency_key} => 1 } @{
	$server->rows('SELECT idempotency_key FROM stripe_lifecycle.api_requests')
};
is_deeply(
	[
		grep { !$keys{ $_->{idempotency_key} // '' } }
		grep { $_->{method} eq 'POST' } @{ $stripe->ledger->{requests} }
	],
	[],
	'no request came without a key from the outbox');

$server->audit_is_sound;
$server->stop;
unlike($server->log_text, qr/PANIC|TRAP|segfault|terminated by signal/,
	'no process crashed');

done_testing();
