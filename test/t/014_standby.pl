
# A standby that is promoted goes on where the primary stopped: nothing that was
# committed is lost, every payment has one PaymentIntent, and the audit trail is
# sealed as one. Where a standby had not got the last checkpoints, the log tells.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use SealedTrail;
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
my $dir = $server->{dir};
my $key = make_key();

write_secret("$dir/checkpoint_key", $key);
write_secret("$dir/public_key", public_key($key), 0644);
$primary->append_conf('pg_hba.conf', 'local replication all trust');
$server->configure("stripe_lifecycle.checkpoint_key_file = '$dir/checkpoint_key'",
	'stripe_lifecycle.checkpoint_interval = 1s');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
my $late = PostgreSQL::Test::Cluster->new('late');
$late->init_from_backup($primary, 'base', has_streaming => 1);
$late->append_conf('postgresql.conf', "stripe_lifecycle.api_key_file = ''");
$late->start;
$server->configure(
	q{synchronous_standby_names = 'standby'}, 'synchronous_commit = on');
eventually(
	sub { $server->value("SELECT sync_state FROM pg_stat_replication WHERE application_name = 'standby'") },
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
# The audit trail is sealed on the primary alone, and can be checked on the standby.
my $newest = 'SELECT max(number) FROM stripe_lifecycle.audit_checkpoints';
my $unsealed = 'SELECT count(*) FROM stripe_lifecycle.payment_transitions
	WHERE position > (SELECT coalesce(max(to_position), 0) FROM stripe_lifecycle.audit_checkpoints)';
my $problems = q{SELECT string_agg(v::text, E'\n') FROM stripe_lifecycle.verify_checkpoints() v};

eventually(sub { $server->value($unsealed) }, 0, 'the trail is sealed');
eventually(sub { $on_standby->($newest) }, $server->value($newest), 'its checkpoints are on the standby');
is($on_standby->($problems), '', 'verify_checkpoints() on the standby');
is( $on_standby->("BEGIN READ ONLY; SELECT stripe_lifecycle.audit_export('-infinity', 'infinity', '$_'); COMMIT"),
	$server->sql("SELECT stripe_lifecycle.audit_export('-infinity', 'infinity', '$_')"), "audit_export() as $_ on the standby")
  foreach qw(json csv);
is($on_standby->(q{SELECT status FROM stripe_lifecycle.health() WHERE check_name = 'checkpoints'}), 'ok', 'health() there is content');

# One standby gets no more from here on, and so lacks the checkpoint that comes next.
$server->disconnect;
$primary->wait_for_catchup($late);
$late->safe_psql('postgres', q{ALTER SYSTEM SET primary_conninfo = ''});
$late->reload;
eventually(sub { $late->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_wal_receiver') }, 0, 'a standby is cut off');
my $seen_by_all = $server->value($newest);
$server->create_payment;
eventually(sub { $server->value($newest) > $seen_by_all && $server->value($unsealed) == 0 }, 1, 'another checkpoint');

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

# It seals what came since, in one chain with what the primary had sealed.
eventually(sub { $standby->safe_psql('postgres', $unsealed) }, 0, 'the promoted standby seals');
is($standby->safe_psql('postgres', $problems), '', 'all checkpoints are of one chain');
is($standby->safe_psql('postgres', 'SELECT count(DISTINCT trail) FROM stripe_lifecycle.audit_checkpoints'), 1, 'of one trail');
is( $standby->safe_psql('postgres', 'SELECT sum(leaves) FROM stripe_lifecycle.audit_checkpoints'),
	$standby->safe_psql('postgres', 'SELECT count(*) FROM stripe_lifecycle.payment_transitions'), 'each transition is in one of them');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM stripe_lifecycle.verify_audit()'), 0, 'and the trails are sound');
is($standby->safe_psql('postgres', q{SELECT status FROM stripe_lifecycle.health() WHERE check_name = 'checkpoints'}), 'ok',
	'health() is content');

# What the verifier says of a server's export and the logs of others: its exit status and words.
sub verify
{
	my ($node, @logs) = @_;
	my ($output, $complaints);
	my $export = "$dir/export_" . $node->name;

	write_secret($export, $node->safe_psql('postgres', 'SELECT stripe_lifecycle.audit_export()') . "\n", 0644);
	IPC::Run::run(
		[ $primary->config_data('--bindir') . '/stripe_lifecycle_verify', '-k', "$dir/public_key",
			(map { ('-l', $_->logfile) } @logs), $export ],
		'>', \$output, '2>', \$complaints);
	return ($? >> 8) . "\n$output$complaints";
}

like(verify($standby, $primary, $standby), qr/\A0\n.*^OK$/ms, 'the logs of both servers agree with it');
like(verify($standby, $primary), qr/\A0\n.*^\d+ of the checkpoints are not in the log$/ms, 'that of the old primary alone has not all of them');

# The other one makes a checkpoint of a number that was given before. From within nobody can tell.
$late->promote;
is($late->safe_psql('postgres', $newest), $seen_by_all, 'the standby that was cut off lacks a checkpoint');
$late->safe_psql('postgres', $server->create_payment_sql(idempotency_key => 'after the failover'));
eventually(sub { $late->safe_psql('postgres', $newest) }, $seen_by_all + 1, 'it seals, also without an API key');
is($late->safe_psql('postgres', $problems), '', 'which is a chain in itself');
like(verify($late, $late), qr/\A0\n.*^OK$/ms, 'and agrees with its own log');
like(verify($late, $primary, $late), qr/\A1\n^checkpoint @{[ $seen_by_all + 1 ]}: the log has another one of that number as well/m,
	'but the log of the old primary has another one of that number');
$late->stop;
$standby->stop;

done_testing();
