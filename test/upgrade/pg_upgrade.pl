
# pg_upgrade to another major version, with thousands of payments in every
# state and requests under way: everything comes along, the guards are on, and
# nothing is sent until somebody says so; then each payment is sent once.
#
# Run by script/pg-upgrade-test, which sets
#   OLD_BINDIR, NEW_BINDIR    installations of two versions, each with the extension
#   PAYMENTS                  how many
#   PG_UPGRADE_OPTIONS        such as --link

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

my ($OLD, $NEW) = map { s{/bin/?$}{}r } @ENV{qw(OLD_BINDIR NEW_BINDIR)};
my $N = $ENV{PAYMENTS};
my @options = split ' ', $ENV{PG_UPGRADE_OPTIONS} // '';

my $stripe = StripeLifecycle::StandIn->new(seed => 17);
my $key_file = PostgreSQL::Test::Utils::tempdir . '/checkpoint_key';
write_secret($key_file, make_key());
my $conf = qq{
stripe_lifecycle.checkpoint_key_file = '$key_file'
max_connections = 50
fsync = off
stripe_lifecycle.max_in_flight = 64
stripe_lifecycle.checkpoint_interval = 1s
stripe_lifecycle.retry_base_delay = 50
stripe_lifecycle.retry_max_delay = 1s
stripe_lifecycle.decline_policy = final
};
my $old = StripeLifecycle->new('old', $stripe, conf => $conf, install_path => $OLD);
my $new = StripeLifecycle->new('new', $stripe, conf => $conf, install_path => $NEW, start => 0);
my $started = time;

sub figure
{
	note(sprintf(shift, @_));
	return;
}

#
# Payments in every state
#

my @ids = split /\n/, $old->sql(
	qq{
	SELECT stripe_lifecycle.create_payment(1000 + n, 'eur', 'order-' || n, metadata => jsonb_build_object('n', n::text),
			capture_method => CASE n % 6 WHEN 4 THEN 'manual' END, decline_policy => CASE n % 6 WHEN 5 THEN 'retry' END)
	  FROM generate_series(1, $N) n});
is(scalar @ids, $N, "$N payments are created");
my $enough = time + 600;
until ($old->value("SELECT count(*) FROM stripe_lifecycle.payments WHERE payment_intent_id IS NULL") eq '0' || time > $enough)
{
	sleep 0.2;
}
is($old->value('SELECT count(DISTINCT payment_intent_id) FROM stripe_lifecycle.payments'),
	$N, 'each has its PaymentIntent');

# one in six of each: nothing yet, succeeded, declined, to be authenticated,
# authorised, declined but may try again
my @methods = (
	undef, 'pm_card_visa', 'pm_card_visa_chargeDeclined', 'pm_card_authenticationRequired',
	'pm_card_visa', 'pm_card_visa_chargeDeclined');
foreach my $row (@{ $old->rows("SELECT amount - 1000 AS n, client_secret FROM stripe_lifecycle.payments") })
{
	my $method = $methods[ $row->{n} % 6 ] or next;

	$stripe->pay($row->{client_secret}, $method);
}

# a PaymentIntent of somebody else's, whose events belong to no payment
$stripe->api('payment_intents', 'amount=77&currency=eur&confirm=true&payment_method=pm_card_visa'
	  . '&return_url=https%3A%2F%2Fexample.com');
$old->deliver_webhooks($stripe);

# declined ones are canceled
until ($old->value("SELECT count(*) FROM stripe_lifecycle.api_requests WHERE finished_at IS NULL") eq '0' || time > $enough)
{
	sleep 0.2;
}
$old->deliver_webhooks($stripe);

# and some of which the webhooks are still to come
my @late = map { $old->create_payment } 1 .. 20;
$old->intent_known($_) foreach @late;
$stripe->pay($old->payment($_, 'client_secret'), 'pm_card_visa') foreach @late;
$N += @late;

my $states = $old->value("SELECT string_agg(format('%s %s', state, n), ', ' ORDER BY state)
	FROM (SELECT state, count(*) AS n FROM stripe_lifecycle.payments GROUP BY state) s");
like($states, qr/^created \d+, requires_action \d+, processing \d+, succeeded \d+, failed \d+$/, 'payments in every state');
cmp_ok($old->value("SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE outcome = 'unmatched'"),
	'>', 0, 'and events of no payment');
eventually(sub { $old->value('SELECT count(*) FROM stripe_lifecycle.audit_checkpoints') },
	qr/^[1-9]/, 'the trail is sealed');

#
# Requests in every state: some carried out whose answers were lost, some under
# way, some not sent at all
#

my $requests = $stripe->count('requests');
$stripe->fault(kind => 'delay', delay_ms => 60000, count => 20);
my @flying = map { $old->create_payment } 1 .. 20;
eventually(sub { $stripe->count('requests') - $requests }, '20', 'requests are under way');
$stripe->fault(kind => 'drop_after', count => 100000);
my @doubtful = map { $old->create_payment } 1 .. 10;
eventually(
	sub { $old->value("SELECT count(*) FROM stripe_lifecycle.api_requests WHERE status IN ('queued', 'in_flight') AND attempts > 1") },
	'10', 'others were carried out, and their answers lost');
$old->configure("stripe_lifecycle.databases = 'nobody'");
my @queued = map { $old->create_payment } 1 .. 30;
$N += @flying + @doubtful + @queued;
cmp_ok($old->value("SELECT count(*) FROM stripe_lifecycle.api_requests WHERE status = 'in_flight'"),
	'>=', 20, 'they are in flight');
is($old->value("SELECT count(*) FROM stripe_lifecycle.api_requests WHERE attempts = 0"),
	'30', 'and some have not been sent');
is(scalar(grep { scalar $stripe->intents_of($_) != 1 } @doubtful), 0, 'though Stripe has a PaymentIntent of those in doubt');
figure('%s payments (%s), made in %.0f s', $N, $states, time - $started);

# Another database, which has never sent anything.
$old->sql('CREATE DATABASE idle');
$old->sql('CREATE EXTENSION stripe_lifecycle', 'idle');

#
# What there is
#

# One line a table, and how its numbers go on.
sub contents
{
	my ($server, $database) = @_;
	my $lines = $server->sql(
		q{
		SELECT format('SELECT %L, count(*), md5(coalesce(string_agg(md5(r::text), %L ORDER BY r::text), %L)) FROM %s r', c.oid::regclass, '', '', c.oid::regclass)
		  FROM pg_class c WHERE c.relnamespace = 'stripe_lifecycle'::regnamespace AND c.relkind = 'r' ORDER BY c.relname \gexec
		SELECT format('SELECT %L, last_value, is_called FROM %s', c.oid::regclass, c.oid::regclass)
		  FROM pg_class c WHERE c.relnamespace = 'stripe_lifecycle'::regnamespace AND c.relkind = 'S' ORDER BY c.relname \gexec
		}, $database);

	cmp_ok(scalar(my @tables = split /\n/, $lines), '>=', 9, 'tables are compared');
	return $lines;
}

sub catalog_of
{
	my ($server, $database) = @_;

	return $server->node->safe_psql($database, slurp_file("$FindBin::RealBin/../lib/catalog.sql"));
}

# Not without the settings under which it was sealed, so as superuser.
sub audits
{
	my ($server) = @_;

	return $server->value(
		"SELECT (SELECT count(*) FROM stripe_lifecycle.verify_audit()) || ' ' || (SELECT string_agg(format('%s: %s', problem, n), ', ')
			FROM (SELECT problem, count(*) AS n FROM stripe_lifecycle.verify_checkpoints() GROUP BY problem) p)");
}

# a fast shutdown while calls are under way, as at any upgrade
$old->restart;
is($old->workers, '0', 'no worker any more');
my $before = contents($old, 'postgres');
my $findings = $old->value('SELECT count(*) FROM stripe_lifecycle.verify_audit()');
is($findings, '0', 'the audit trail is sound');
my $sealed = $old->value("SELECT coalesce(string_agg(DISTINCT problem, ', '), 'nothing') FROM stripe_lifecycle.verify_checkpoints()");
my $size = $old->value("SELECT pg_size_pretty(pg_database_size('postgres'))");
$old->stop;

#
# pg_upgrade
#
# The newest minor releases of PostgreSQL stamp every column, which minor releases from before them, also
# of later versions, don't know. pg_upgrade to one of these would fail for any table at all.
#

sub forget_stamps
{
	my $stamped = qr/pg_attver/;

	return if slurp_file("$NEW/bin/pg_dump") =~ $stamped || slurp_file("$OLD/bin/postgres") !~ $stamped;
	note('the new server does not know pg_attver: it is taken away first');
	$old->node->append_conf('postgresql.conf', 'allow_system_table_mods = on');
	$old->start;
	foreach my $database (split /\n/, $old->sql('SELECT datname FROM pg_database WHERE datallowconn'))
	{
		$old->sql(q{UPDATE pg_attribute SET attoptions = nullif(ARRAY(SELECT o FROM unnest(attoptions) o WHERE o !~ '^pg_attver='), '{}')
			WHERE attoptions::text ~ 'pg_attver'}, $database);
	}
	$old->stop;
	return;
}

forget_stamps();

my $dir = PostgreSQL::Test::Utils::tempdir_short;
chdir $dir or die "chdir: $!";
my @command = (
	"$NEW/bin/pg_upgrade", '-b', "$OLD/bin", '-B', "$NEW/bin", '-d', $old->node->data_dir,
	'-D', $new->node->data_dir, '-s', $dir, '-p', $old->node->port, '-P', $new->node->port, '-j', '2');
my $output = '';
ok(IPC::Run::run([ @command, '--check' ], '>&', \$output), 'pg_upgrade --check') or diag($output);
my $start = time;
ok(IPC::Run::run([ @command, @options ], '>&', \$output), join ' ', 'pg_upgrade', @options) or diag($output);
figure('a database of %s: pg_upgrade took %.1f s', $size, time - $start);
unlike($old->log_text . ($output // ''), qr/stripe_lifecycle.*(ERROR|FATAL|PANIC)/, 'without a complaint of the extension');

$new->node->append_conf('postgresql.conf', "stripe_lifecycle.databases = 'nobody'");
$new->start;
like($new->value('SHOW server_version'), qr/^(?!15)\d\d/, 'the new server runs: ' . $new->value('SHOW server_version'));

#
# Everything is there
#

is(contents($new, 'postgres'), $before, 'every row and number is as it was');
$new->sql('CREATE DATABASE fresh');
$new->sql('CREATE EXTENSION stripe_lifecycle', 'fresh');
is(catalog_of($new, 'postgres'), catalog_of($new, 'fresh'), 'the catalogs are as in a new database');
is($new->value('SELECT count(*) FROM stripe_lifecycle.verify_audit()'), '0', 'the audit trail is sound');
is($new->value("SELECT coalesce(string_agg(DISTINCT problem, ', '), 'nothing') FROM stripe_lifecycle.verify_checkpoints()"),
	$sealed, 'and what was sealed has not changed');
is($new->value('SELECT problem FROM stripe_lifecycle.versions()'), '', 'library and objects fit');

#
# The guards are on
#

like($new->health('guards'), qr/^ok/, 'health() finds the guards on');
fails_with($new->error("UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE id = '$ids[5]'"),
	'SL002', qr/./, 'a payment can not be moved by hand');
fails_with($new->error('DELETE FROM stripe_lifecycle.payment_transitions'), 'SL005', qr/./, 'nor its trail be removed');
fails_with($new->error("INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency, state)
	VALUES (gen_random_uuid(), 'by hand', 1, 'eur', 'succeeded')"), 'SL001', qr/./, 'nor one be slipped in');

#
# It is taken for a copy: PostgreSQL gives it another system identifier
#

$requests = $stripe->count('requests');
my $log = $new->log_length;
$new->configure("stripe_lifecycle.databases = ''");
eventually(sub { $new->log_text($log) }, qr/stripe_lifecycle has paused this database, so nothing is sent to Stripe/,
	'the worker finds a copy, and says that it sends nothing');
like($new->health('paused'), qr/^warning: paused by stripe_lifecycle_worker .*this is a copy of database/, 'so does health()');
my $error = $new->error($new->create_payment_sql(idempotency_key => 'after'));
is($error->{sqlstate}, '', 'payments are created');
like($error->{text}, qr/paused in this database/, 'with a warning');
push @queued, $new->value("SELECT id FROM stripe_lifecycle.payments WHERE idempotency_key = 'after'");
$N++;

# webhooks are taken in all the same, late ones too
my @outcomes = $new->deliver_webhooks($stripe);
cmp_ok(scalar(grep { $_ eq 'applied' } @outcomes), '>=', scalar @late, 'webhooks are taken in');
is($new->state($_), 'succeeded', 'a payment that was paid before ends') foreach @late[ 0 .. 2 ];
sleep 1;
is($stripe->count('requests'), $requests, 'nothing was sent');
is($new->value('SELECT paused FROM stripe_lifecycle.worker_state', 'idle'), 'f', 'a database that has never sent anything is not paused');

#
# It is the original, and somebody says so
#

$stripe->no_faults;
$start = time;
$new->sql('SELECT stripe_lifecycle.resume_worker()');
$new->intent_known($_, 'a request is sent after the upgrade') foreach @flying, @doubtful, @queued;
figure('%d requests sent after resume_worker() in %.1f s', @flying + @doubtful + @queued, time - $start);
my @intents = @{ $stripe->ledger->{payment_intents} };
my %of;
$of{ $_->{metadata}{stripe_lifecycle_payment_id} // 'somebody else' }++ foreach @intents;
is(delete $of{'somebody else'}, 1, 'Stripe has the PaymentIntent of somebody else');
is(scalar(keys %of), $N, 'one for each payment');
is(scalar(grep { $_ != 1 } values %of), 0, 'and no second one');
eventually(
	sub
	{
		$new->value("SELECT count(*) FROM stripe_lifecycle.payments p WHERE payment_intent_id IS NULL
			OR NOT EXISTS (SELECT FROM stripe_lifecycle.api_requests r WHERE r.payment_id = p.id AND r.status = 'succeeded')");
	},
	'0', 'each payment knows its own');
$new->deliver_webhooks($stripe);
$stripe->pay($new->payment($queued[0], 'client_secret'), 'pm_card_visa');
$new->deliver_webhooks($stripe);
is($new->state($queued[0]), 'succeeded', 'and can be paid');
$new->audit_is_sound('the audit trail goes on');
like($new->health('paused'), qr/^ok/, 'nothing is paused');
like($new->health($_), qr/^ok/, "health: $_") foreach qw(library launcher worker api_key moved queue guards);

$new->stop;
done_testing();
