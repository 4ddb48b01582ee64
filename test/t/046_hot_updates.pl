
# What the updates of a payment's life cost its table: those between the first
# and the last are heap-only tuples (HOT), which touch no index and are cleaned
# up without VACUUM. The comments at the tables' fillfactors rest on this.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StripeLifecycle;

my $stripe = StripeLifecycle::StandIn->new(seed => 46);
my $server = StripeLifecycle->new('main', $stripe, conf => "autovacuum = off\nstripe_lifecycle.worker_linger = 60s\n");
my $N = 50;

sub updates
{
	my ($table) = @_;
	my ($all, $hot) = split /\|/, $server->value(
		"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
		  WHERE relid = 'stripe_lifecycle.$table'::regclass");

	return { all => $all, hot => $hot };
}

# Counters are flushed when a session is idle for a second, or at its end.
sub counted
{
	my ($table, $wanted) = @_;

	$server->disconnect;
	eventually(sub { $server->disconnect; updates($table)->{all} }, $wanted, "updates of $table are counted");
	return updates($table);
}

my @ids = split /\n/, $server->sql(
	"SELECT stripe_lifecycle.create_payment(1000 + n, 'eur', 'hot-' || n, decline_policy => 'retry')
	   FROM generate_series(1, $N) n");
$server->intent_known($_) foreach @ids;
my $enough = sub { $_[0] >= $N };
my $linked = counted('payments', $enough);
note("until the PaymentIntent is stored: $linked->{all} updates, $linked->{hot} HOT");

# declined, then authentication is asked for: nothing ends
$stripe->pay($server->payment($_, 'client_secret'), 'pm_card_visa_chargeDeclined') foreach @ids;
$server->deliver_webhooks($stripe);
my $base = counted('payments', $enough);
# A decline outranks what else is said of the same second, so each step has a second of its own.
sleep 1;
$stripe->pay($server->payment($_, 'client_secret'), 'pm_card_visa_chargeDeclined') foreach @ids;
$server->deliver_webhooks($stripe);
sleep 1;
$stripe->pay($server->payment($_, 'client_secret'), 'pm_card_authenticationRequired') foreach @ids;
$server->deliver_webhooks($stripe);
my $between = counted('payments', sub { $_[0] >= $base->{all} + 2 * $N });
my ($all, $hot) = ($between->{all} - $base->{all}, $between->{hot} - $base->{hot});
note("a decline and a demand for authentication: $all updates, $hot HOT");
cmp_ok($hot, '>=', 0.9 * $all, 'updates between the first and the last are HOT');

# the end
$base = $between;
$stripe->authenticate($server->payment($_, 'payment_intent_id'), 'succeed') foreach @ids;
$server->deliver_webhooks($stripe);
is($server->value("SELECT count(*) FROM stripe_lifecycle.payments WHERE state = 'succeeded'"), $N, 'all are paid');
my $ended = counted('payments', sub { $_[0] >= $base->{all} + $N });
note(sprintf 'the end: %d updates, %d HOT', $ended->{all} - $base->{all}, $ended->{hot} - $base->{hot});
foreach my $table (qw(payments webhook_events api_requests api_attempts reconcile_state))
{
	my $u = updates($table);

	note("in all, $table: $u->{all} updates, $u->{hot} HOT");
}

# Nothing is left behind that only a VACUUM could remove, but for one version
# of each row and of each update that was not HOT.
my $dead = $server->value("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'stripe_lifecycle.payments'::regclass");
note("dead rows of payments without any VACUUM: $dead");
cmp_ok($server->value("SELECT pg_relation_size('stripe_lifecycle.payments') / 8192"), '<=', $N / 4, 'the table stays small');

$server->stop;
done_testing();
