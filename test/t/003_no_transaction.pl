
# While Stripe thinks, the worker holds nothing and hears everything: no
# transaction, snapshot or lock, and it obeys a shutdown, a termination and a
# reload at once. Secrets are read again on reload.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use StripeLifecycle;

my $THINKS_MS = 3000;

my $stripe = StripeLifecycle::StandIn->new(seed => 3);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
stripe_lifecycle.worker_linger = 60s
stripe_lifecycle.retry_base_delay = 50
stripe_lifecycle.retry_max_delay = 200
});
my $id;

# A payment whose request is at Stripe and stays there for a while.
sub create_slow_payment
{
	my ($ms) = @_;

	$stripe->fault(kind => 'delay', delay_ms => $ms);
	my $payment = $server->create_payment;
	eventually(
		sub { scalar $stripe->arrivals("stripe_lifecycle-$payment-create") },
		1, 'the request is at Stripe');
	return $payment;
}

#
# What the worker holds meanwhile
#

$id = create_slow_payment($THINKS_MS);
my $before_answer = time + $THINKS_MS / 1000 - 0.5;
my ($samples, %seen) = (0);
while (1)
{
	my $worker = $server->value(
		q{SELECT state, xact_start, backend_xid, backend_xmin,
			(SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid)
		  FROM pg_stat_activity a
		 WHERE backend_type = 'stripe_lifecycle worker'});

	# storing the answer takes a transaction, of course
	last if time > $before_answer;
	$seen{$worker}++;
	$samples++;
	sleep 0.01;
}
is($server->request($id)->{status}, 'in_flight', 'the answer takes its time');
cmp_ok($samples, '>', 20, 'the worker was looked at while it waited')
  or diag("$samples times");
is_deeply([ keys %seen ], ['idle||||0'],
	'it held no transaction, no snapshot and no lock all along')
  or diag(StripeLifecycle::show(\%seen));
note("$samples samples");
$server->intent_known($id);

# One slow call keeps nobody waiting, nor does it stop the rest.
$id = create_slow_payment($THINKS_MS);
$server->intent_known($server->create_payment, 'others are served meanwhile');
is($server->request($id)->{status}, 'in_flight', 'while one still waits');

#
# pg_terminate_backend, pg_cancel_backend
#

$id = create_slow_payment($THINKS_MS);
my $worker = $server->value(
	q{SELECT pid FROM pg_stat_activity
	   WHERE backend_type = 'stripe_lifecycle worker'});
$server->sql("SELECT pg_cancel_backend($worker)");
my $start = time;
is($server->value("SELECT pg_terminate_backend($worker, 5000)"),
	't', 'a waiting worker can be terminated');
cmp_ok(time - $start, '<', 2, 'at once');
note(sprintf 'pg_terminate_backend: %.0f ms', 1000 * (time - $start));
$server->intent_known($id, 'another one goes on');
is($server->attempts($id)->[0]{result}, 'lost', 'from what it left');
is(scalar $stripe->intents_of($id), 1, 'to one PaymentIntent');
unlike($server->log_text, qr/canceling statement/,
	'cancelling it does nothing');

#
# Secrets are read again on reload
#

sub event
{
	$stripe->control('POST', 'webhooks/resend', { all => JSON::PP::true });
	return ($stripe->pull(1))[0];
}

my $delivery = event();
like($server->ingest($delivery->{bytes}, $delivery->{header}),
	qr/^\w+$/, 'a webhook is accepted');
$stripe->webhooks(secret => 'whsec_tap_rotated');
$delivery = event();
fails_with(
	$server->error(
		$server->ingest_sql($delivery->{bytes}, $delivery->{header})),
	'SL021',
	qr/refused/,
	'after Stripe rotated the secret it is not');
write_secret($server->{webhook_secret_file}, "whsec_tap_rotated\n");
fails_with(
	$server->error(
		$server->ingest_sql($delivery->{bytes}, $delivery->{header})),
	'SL021',
	qr/refused/,
	'nor with a new file that nobody reloaded');
$server->reload;
is( $server->error(
		$server->ingest_sql($delivery->{bytes}, $delivery->{header}))->{text},
	'',
	'after a reload it is, in the same session');

# A live key makes live payments: so the answer shows which one was used.
$id = $server->create_payment;
$server->intent_known($id);
is($server->payment($id, 'livemode'),
	JSON::PP::false, 'with a test key, payments are test payments');
write_secret($server->{api_key_file}, "sk_live_tap\n");
$server->reload;
eventually(
	sub {
		my $p = $server->create_payment;

		$server->intent_known($p);
		$server->payment($p, 'livemode') ? 'live' : 'test';
	},
	'live',
	'after a reload the worker uses the new key');

# Without a key the queue waits.
sub warnings_about_key
{
	return scalar(() = $server->log_text =~ /WARNING: .* no API key/g);
}

unlink $server->{api_key_file};
$server->reload;
# until the worker has heard of the reload it sends with the key that it has
my @waiting;
eventually(
	sub {
		my $p = $server->create_payment;

		sleep 0.02
		  until warnings_about_key()
		  || defined $server->payment($p, 'payment_intent_id');
		push @waiting, $p
		  unless defined $server->payment($p, 'payment_intent_id');
		return warnings_about_key();
	},
	1,
	'without a key there is a warning');
my $requests = $stripe->count('requests');
push @waiting, $server->create_payment(idempotency_key => "keyless-$_")
  foreach 0 .. 3;
eventually(sub { $server->workers }, 0, 'and the worker leaves');
is($stripe->count('requests'), $requests, 'nothing is sent');
is( $server->value(
		q{SELECT r.status, sum(r.attempts), count(*)
		    FROM stripe_lifecycle.api_requests r
		    JOIN stripe_lifecycle.payments p ON p.id = r.payment_id
		   WHERE p.idempotency_key LIKE 'keyless-%' GROUP BY 1}),
	'queued|0|4',
	'the queue is left alone');
$server->reload;
push @waiting, $server->create_payment;
eventually(\&warnings_about_key, 2, 'one warning for each reload');
write_secret($server->{api_key_file}, "sk_test_tap\n", 0644);
$server->reload;
eventually(\&warnings_about_key, 3, 'a key that others can read is none');
write_secret($server->{api_key_file}, "sk_test_tap\n");
$server->reload;
$server->intent_known($_, 'with the key back all of it is sent')
  foreach @waiting;
is(warnings_about_key(), 3, 'without further warnings');

#
# A shutdown does not wait for Stripe
#

# How long a server with nothing under way needs, as a yardstick for the log.
sub stop_time
{
	my ($mode) = @_;
	my $start;

	$server->disconnect;
	$start = time;
	$server->stop($mode);
	return time - $start;
}

my ($took, $lost);
foreach my $try (1 .. 3)
{
	# more than one try, since a busy machine can make anything slow
	$server->intent_known($lost) if defined $lost;
	$lost = create_slow_payment(6_000);
	$took = stop_time('fast');
	note(sprintf 'fast shutdown with a request under way: %.0f ms',
		1000 * $took);
	$server->start;
	last if $took < 1;
}
cmp_ok($took, '<', 1, 'a fast shutdown takes less than a second');

# Stripe is done with it, but still has it in hand.
eventually(
	sub { $server->attempts($lost)->[0]{result} },
	'lost', 'the attempt that nobody saw the end of is marked as lost');
eventually(
	sub { scalar @{ $server->attempts($lost) } },
	sub { $_[0] >= 2 },
	'and its request is sent again');
$server->intent_known($lost);
is(scalar $stripe->intents_of($lost), 1, 'to one PaymentIntent');

$server->audit_is_sound;
note(sprintf 'fast shutdown with nothing under way: %.0f ms',
	1000 * stop_time('fast'));
unlike($server->log_text, qr/PANIC|TRAP|segfault|terminated by signal/,
	'no process crashed');

done_testing();
