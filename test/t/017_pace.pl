
# Without a cap the worker is as fast as it can be, until Stripe says that it is
# too much. Then the whole account is slowed down, and no other one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use StripeLifecycle;

my $stripe = StripeLifecycle::StandIn->new(seed => 17);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
stripe_lifecycle.worker_linger = 60s
stripe_lifecycle.max_requests_per_second = 0
stripe_lifecycle.max_in_flight = 16
stripe_lifecycle.retry_base_delay = 50
stripe_lifecycle.retry_max_delay = 200
});

sub create_many
{
	my ($n, $prefix, $account) = @_;

	$server->sql(
		"SELECT count(stripe_lifecycle.create_payment(100, 'eur', '$prefix-' || i,
			stripe_account => " . quote($account) . "))
		   FROM generate_series(1, $n) i");
	return;
}

sub unfinished
{
	my ($prefix) = @_;

	return $server->value(
		"SELECT count(*) FROM stripe_lifecycle.api_requests r
		   JOIN stripe_lifecycle.payments p ON p.id = r.payment_id
		  WHERE p.idempotency_key LIKE '$prefix-%' AND r.status <> 'succeeded'");
}

# Seconds from the first to the last call for one account.
sub took
{
	my ($account) = @_;

	return $server->value(
		"SELECT extract(epoch FROM max(a.started_at) - min(a.started_at))
		   FROM stripe_lifecycle.api_attempts a
		   JOIN stripe_lifecycle.api_requests r ON r.id = a.request_id
		  WHERE r.stripe_account = '$account'");
}

# Nothing to complain about: no limit.
create_many(300, 'free', 'acct_free');
eventually(sub { unfinished('free') }, 0, '300 payments are sent');
my $free = took('acct_free');
note(sprintf '300 requests in %.2f s', $free);
cmp_ok(300 / $free, '>', 30, 'far faster than after a complaint');

# One complaint, by one of the first 16. What was sent within a second is halved.
$stripe->fault(kind => '429', count => 1);
create_many(80, 'slow', 'acct_slow');
eventually(sub { $stripe->count('faults') }, 1, 'one request is turned away');
my $start = time;
my $other = $server->create_payment(stripe_account => 'acct_other');
$server->intent_known($other, 'another account is served');
cmp_ok(time - $start, '<', 1, 'at once');
cmp_ok(unfinished('slow'), '>', 20, 'while this one is slowed down');
eventually(sub { unfinished('slow') }, 0, 'all are sent in the end');
my $slow = took('acct_slow');
note(sprintf '80 requests after a 429 in %.2f s', $slow);
cmp_ok($slow, '>', 2, 'every call of the account waited, not just the one');

# One that says "too many" again and again is asked less and less.
$stripe->fault(kind => '429', count => -1);
my $before = $stripe->count('requests');
create_many(1, 'stubborn', 'acct_slow');
sleep 6;
my $asked = $stripe->count('requests') - $before;
note("$asked requests in 6 s of complaints");
cmp_ok($asked, '>=', 3, 'it is asked');
cmp_ok($asked, '<=', 20, 'but ever more slowly');
$stripe->no_faults;
eventually(sub { unfinished('stubborn') }, 0, 'until it is content');

# A cap that is set meanwhile holds.
$server->configure('stripe_lifecycle.max_requests_per_second = 10');
$before = $stripe->count('requests');
create_many(15, 'capped', 'acct_free');
$start = time;
eventually(sub { unfinished('capped') }, 0, 'with a cap again');
cmp_ok(time - $start, '>', 1, 'it is kept to');

$server->stop;
unlike($server->log_text, qr/PANIC|TRAP|segfault|WARNING/, 'without any complaint');

done_testing();
