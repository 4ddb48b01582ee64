
# A standby that is promoted goes on where the primary stopped: nothing that was
# committed is lost, and every payment has one PaymentIntent.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use StripeLifecycle;

my $stripe = StripeLifecycle::StandIn->new(seed => 14);
my $server = StripeLifecycle->new(
	'primary', $stripe,
	conf => q{
wal_level = replica
max_wal_senders = 4
stripe_lifecycle.retry_base_delay = 50
stripe_lifecycle.retry_max_delay = 200
});
my $primary = $server->node;

$primary->append_conf('pg_hba.conf', 'local replication all trust');
$server->reload;
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$server->configure(
	q{synchronous_standby_names = '*'}, 'synchronous_commit = on');
eventually(
	sub { $server->value('SELECT sync_state FROM pg_stat_replication') },
	'sync', 'there is a synchronous standby');
$server->intent_known($server->create_payment, 'the primary sends');
is( $standby->safe_psql('postgres',
		q{SELECT count(*) FROM pg_stat_activity
		   WHERE backend_type LIKE 'stripe_lifecycle%'}),
	0, 'the standby has no process of ours');

# What only reads works on the standby; what writes is refused with a word on why.
my $paid = $server->create_payment(idempotency_key => 'read there');
$server->intent_known($paid);
$stripe->pay($server->payment($paid, 'client_secret'), 'pm_card_visa');
eventually(sub { $server->deliver_webhooks($stripe); $server->state($paid) }, 'succeeded', 'one is paid');
my $on_standby = sub { $standby->safe_psql('postgres', $_[0]) };
eventually(sub { $on_standby->("SELECT state FROM stripe_lifecycle.payment_status('$paid')") },
	'succeeded', 'payment_status() on the standby');
eventually(sub { $on_standby->("SELECT state FROM stripe_lifecycle.payment_status('$paid', '100 ms')") },
	'succeeded', 'with a wait too');
is($on_standby->('SELECT count(*) FROM stripe_lifecycle.verify_audit()'), 0, 'verify_audit() on the standby');
is($on_standby->("SELECT count(*) FROM stripe_lifecycle.verify_audit('$paid')"), 0, 'of one payment too');
is($on_standby->('SELECT count(*) FROM stripe_lifecycle.legal_transitions()'), 14, 'legal_transitions() on the standby');
isnt($on_standby->('SELECT count(*) FROM stripe_lifecycle.health()'), 0, 'health() on the standby');
my $webhook = '{"id": "evt_standby", "object": "event", "type": "charge.succeeded", "created": 1, "livemode": false,
	"data": {"object": {"id": "ch_1", "object": "charge"}}}';
foreach my $sql (
	$server->ingest_sql($webhook, StripeLifecycle::sign($webhook)),
	$server->create_payment_sql(idempotency_key => 'on the standby'),
	"SELECT stripe_lifecycle.cancel_payment('$paid')",
	"SELECT stripe_lifecycle.replay_event('evt_1')")
{
	my (undef, undef, $error) = $standby->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	like($error, qr/ERROR:  25006: cannot execute \w+\(\) on a standby server.*HINT:  Call it on the primary/s,
		'refused there: ' . ($sql =~ /(\w+)\(/)[0]);
}
my (undef, undef, $by_hand) = $standby->psql('postgres',
	"UPDATE stripe_lifecycle.payments SET state = 'failed'");
like($by_hand, qr/read-only transaction/, 'and so is what is written by hand');

# Requests that take a while, so that some are under way when the end comes.
$stripe->fault(kind => 'delay', delay_ms => 400, count => 1000);
my $known = "$server->{dir}/known";
write_secret($known, '');
my $writer = StripeLifecycle::spawn(
	sub {
		open my $out, '>', $known or die "could not write $known: $!";
		$out->autoflush(1);
		for my $n (1 .. 2000)
		{
			my ($code, $id) = $primary->psql('postgres',
				"SELECT stripe_lifecycle.create_payment(100, 'eur', 'load-$n')");

			last if $code != 0;
			print $out "$id\n";
		}
	});
eventually(
	sub { scalar(() = slurp_file($known) =~ /\n/g) },
	sub { $_[0] >= 20 }, 'payments are made');
$server->disconnect;
$primary->stop('immediate');
StripeLifecycle::finish($writer);
$stripe->no_faults;
$standby->promote;
my @known = split /\n/, slurp_file($known);
note(scalar(@known) . ' payments were committed');

eventually(
	sub {
		$standby->safe_psql('postgres',
			'SELECT count(*) FROM stripe_lifecycle.payments
			  WHERE payment_intent_id IS NULL');
	},
	0,
	'the promoted standby sends the rest by itself');
my @stored = split /\n/,
  $standby->safe_psql('postgres', 'SELECT id FROM stripe_lifecycle.payments');
my %stored = map { $_ => 1 } @stored;
is(scalar(grep { !$stored{$_} } @known), 0, 'nothing that was committed is lost');
my $ledger = $stripe->ledger;
is($ledger->{counts}{duplicated_payments}, 0, 'no payment has two PaymentIntents');
is($ledger->{counts}{payment_intents}, scalar @stored, 'and each has one');
like(
	$standby->safe_psql('postgres',
		'SELECT moved_from, timeline FROM stripe_lifecycle.worker_state'),
	qr/^host \S+, port \d+, timeline 1\|2$/,
	'the move is on record');
like(
	$standby->safe_psql('postgres',
		q{SELECT status || ': ' || detail FROM stripe_lifecycle.health() WHERE check_name = 'moved'}),
	qr/^warning: moved from host \S+, port \d+, timeline 1 at /,
	'health() warns');
is( $standby->safe_psql('postgres',
		'SELECT paused FROM stripe_lifecycle.worker_state'),
	'f', 'but does not pause it');
$standby->stop;

done_testing();
