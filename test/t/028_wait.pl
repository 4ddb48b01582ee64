
# Waiting in payment_status(): what it holds meanwhile (no snapshot where that is safe, no locks, no
# queries), what wakes it, and how many may.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use StripeLifecycle;
use StripeLifecycle::PostgREST;

my $stripe = StripeLifecycle::StandIn->new(seed => 28);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => StripeLifecycle::PostgREST::settings(map { "rate_limit_$_" } qw(address role webhook)) . q{
max_prepared_transactions = 5
wal_level = replica
max_wal_senders = 4
autovacuum = off
});
StripeLifecycle::PostgREST::set_up($server);
$server->sql(q{SELECT stripe_lifecycle.pause_worker('tap'); SET client_min_messages = error});
my $rest = StripeLifecycle::PostgREST->new($server);
my $dir = PostgreSQL::Test::Utils::tempdir;
my $n = 0;
my $clock = int time;

# Brings news of a payment: each event is a second newer than the one before, and tells another state.
sub news
{
	my ($id, $type) = @_;
	my $status = $type // ($server->state($id) eq 'processing' ? 'requires_action' : 'processing');
	my $event = sprintf '{"id":"evt_%d","object":"event","type":"payment_intent.%s","created":%d,"livemode":false,"data":{"object":'
	  . '{"id":"pi_%s","object":"payment_intent","amount":2000,"currency":"eur","status":"%s","metadata":{"stripe_lifecycle_payment_id":"%s"}}}}',
	  ++$n, $status, $clock++, $id, $status, $id;

	return sprintf 'SELECT stripe_lifecycle.ingest_webhook(%s::text, %s)', quote($event), quote(sign($event));
}

# A psql of its own that runs a statement in the background; what it is doing, and what it said.
{
	my $number = 0;

	sub start
	{
		my ($sql, $node) = @_;
		my $name = 'waiter' . ++$number;
		my $out = "$dir/$name";

		$node //= $server->node;
		my $pid = spawn(sub {
			my ($code, $stdout, $stderr) = $node->psql('postgres', $sql, on_error_stop => 0,
				connstr => $node->connstr('postgres') . " application_name=$name");

			write_secret("$out.time", time);
			write_secret($out, "$stdout\n$stderr");
		});
		return { name => $name, out => $out, pid => $pid, node => $node };
	}
}

# A test: waits until the session sleeps in payment_status().
sub asleep
{
	my ($waiter) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return $waiter->{node}->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = '$waiter->{name}' AND wait_event_type = 'Extension'")
	  || fail("$waiter->{name} sleeps");
}

sub activity
{
	my ($waiter, $column) = @_;

	return $server->value("SELECT $column FROM pg_stat_activity WHERE application_name = '$waiter->{name}'");
}

sub result
{
	my ($waiter) = @_;

	StripeLifecycle::finish($waiter->{pid});
	return slurp_file($waiter->{out}) =~ s/\n+\z//r;
}

#
# What is held, by the shape of the statement
#

my $id = $server->create_payment(amount => 2000, currency => 'eur');
my $status = "stripe_lifecycle.payment_status('$id', '40 s')";
my $as_postgrest = qq{WITH pgrst_source AS (SELECT pgrst_call.* FROM (SELECT '{"payment_id": "$id", "wait": "40 s"}'::json AS json_data) pgrst_payload,
	LATERAL (SELECT "payment_id", "wait" FROM json_to_record(pgrst_payload.json_data) AS _("payment_id" uuid, "wait" interval) LIMIT 1) pgrst_body,
	LATERAL "stripe_lifecycle"."payment_status"("payment_id" := pgrst_body."payment_id", "wait" := pgrst_body."wait") pgrst_call)
	SELECT coalesce(json_agg(_postgrest_t)->0, 'null') AS body, nullif(current_setting('response.headers', true), '') FROM (SELECT "payment_status".* FROM "pgrst_source" AS "payment_status") _postgrest_t};
$server->sql(q{
	CREATE TABLE public.t AS SELECT repeat('x', 10) AS x FROM generate_series(1, 1000);
	CREATE FUNCTION public.volatile_sql(uuid) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT state::text FROM stripe_lifecycle.payment_status($1, '40 s') $$;
	CREATE FUNCTION public.stable_plpgsql(uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$ DECLARE r record; BEGIN r := stripe_lifecycle.payment_status($1, '40 s'); RETURN r.state; END $$;
	CREATE FUNCTION public.stable_query(uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$ DECLARE r record; BEGIN SELECT * INTO r FROM stripe_lifecycle.payment_status($1, '40 s'); RETURN r.state; END $$;
	CREATE FUNCTION public.other() RETURNS text LANGUAGE sql STABLE AS $$ SELECT x FROM public.t LIMIT 1 $$;
	CREATE VIEW public.v AS SELECT count(*) FROM public.t;
});

# [ released?, statement ]
my @shapes = (
	[ 1, "SELECT state FROM $status" ],
	[ 1, "SELECT * FROM $status AS s, generate_series(1, 2)" ],
	[ 1, $as_postgrest ],
	[ 1, "SELECT $status" ],
	[ 1, "SELECT ($status).state" ],
	[ 1, "BEGIN; SELECT 1; SELECT state FROM $status; COMMIT" ],
	[ 1, "BEGIN; INSERT INTO public.t VALUES ('y'); SAVEPOINT s; SELECT state FROM $status; ROLLBACK" ],
	[ 1, "BEGIN; DECLARE c CURSOR FOR SELECT state FROM $status; FETCH c; FETCH c; COMMIT" ],
	[ 1, "SELECT state FROM stripe_lifecycle.payment_status((SELECT '$id'::uuid), '40 s')" ],
	[ 0, "SELECT state FROM $status, public.t LIMIT 1" ],
	[ 0, "SELECT state FROM $status, public.v" ],
	[ 0, "SELECT state, public.other() FROM $status" ],
	[ 0, "SELECT state FROM $status WHERE EXISTS (SELECT FROM public.t)" ],
	[ 0, "SELECT public.volatile_sql('$id')" ],
	[ 0, "SELECT public.stable_plpgsql('$id')" ],
	[ 0, "SELECT public.stable_query('$id')" ],
	[ 0, "SELECT state, x FROM $status, LATERAL (SELECT public.other() AS x) l" ],
	[ 0, "DO \$\$ BEGIN PERFORM * FROM $status; END \$\$" ],
	[ 0, "DO \$\$ DECLARE r record; BEGIN FOR r IN SELECT state FROM $status LOOP RAISE NOTICE '%', r.state; END LOOP; END \$\$" ],
	[ 0, "CREATE TABLE public.made AS SELECT state FROM $status; DROP TABLE public.made" ],
	[ 0, "INSERT INTO public.t SELECT state::text FROM $status" ],
	[ 0, "EXPLAIN (ANALYZE, COSTS OFF) SELECT state FROM $status" ],
	[ 0, "BEGIN; DECLARE c CURSOR FOR SELECT x FROM public.t; FETCH c; SELECT state FROM $status; FETCH c; COMMIT" ],
	[ 0, "SELECT count(*) FROM ts_stat('SELECT to_tsvector(state::text) FROM ' || \$\$$status\$\$)" ]);

foreach my $shape (@shapes)
{
	my ($released, $sql) = @$shape;
	my $name = length $sql > 110 ? substr($sql, 0, 107) . '...' : $sql;
	my $waiter = start($sql =~ s/\n\s*/ /gr);

	asleep($waiter);
	is(activity($waiter, 'backend_xmin IS NULL'), $released ? 't' : 'f', ($released ? 'no snapshot: ' : 'keeps it: ') . $name);
	is( $server->value("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation
			WHERE a.application_name = '$waiter->{name}' AND c.relnamespace = 'stripe_lifecycle'::regnamespace"),
		0, 'no lock on our tables') if $released;
	my $began = time;

	$server->sql(news($id));
	unlike(result($waiter), qr/WARNING|ERROR/, 'and it answers');
	cmp_ok(time - $began, '<', 20, 'at once');
}
$server->sql('DELETE FROM public.t WHERE x <> repeat(\'x\', 10)');

# A look that finds nothing new leaves no snapshot behind either.
my $waiter = start("SELECT state FROM $status");
asleep($waiter);
foreach (1 .. 10)
{
	$server->sql("UPDATE stripe_lifecycle.api_requests SET attempts = attempts WHERE payment_id = '$id'");
	sleep 0.05;
}
is(activity($waiter, "state || ' ' || (backend_xmin IS NULL)"), 'active true', 'no snapshot after looks in vain');
$server->sql(news($id));
unlike(result($waiter), qr/WARNING|ERROR/, 'and it answers');

#
# VACUUM is not held up. A statement that reads a table shows what would be otherwise.
#

sub pages_after_vacuum
{
	my ($sql) = @_;
	my $waiter = start($sql);
	my $pages;

	asleep($waiter);
	$server->sql('DELETE FROM public.t');
	$server->sql('VACUUM (TRUNCATE) public.t');
	$pages = $server->value("SELECT pg_relation_size('public.t') / current_setting('block_size')::int");
	$server->sql(news($id));
	result($waiter);
	return $pages;
}
is(pages_after_vacuum("SELECT state FROM $status"), 0, 'VACUUM removes what dies during a wait');
$server->sql("INSERT INTO public.t SELECT 'x' FROM generate_series(1, 1000)");
$server->sql('CREATE TABLE public.u AS SELECT 1 AS a');
cmp_ok(pages_after_vacuum("SELECT state FROM $status, public.u"), '>', 0, 'but not during one of a statement that reads a table');
$server->sql("INSERT INTO public.t SELECT 'x' FROM generate_series(1, 1000)");

# Locks: a migration gets through.
$waiter = start("SELECT state FROM $status");
asleep($waiter);
is($server->error("BEGIN; SET LOCAL lock_timeout = '1s'; LOCK stripe_lifecycle.payments, stripe_lifecycle.api_requests IN ACCESS EXCLUSIVE MODE")->{sqlstate}, '', 'the tables can be locked meanwhile');
$server->sql('ROLLBACK');
$server->sql(news($id));
result($waiter);

#
# What it returns is of now, and what follows in the transaction sees it
#

$waiter = start("BEGIN; SELECT count(*) FROM public.t; SELECT 'waited: ' || state FROM $status; SELECT count(*) FROM public.t;
	SELECT 'later: ' || state FROM stripe_lifecycle.payments WHERE id = '$id'; COMMIT");
asleep($waiter);
$server->sql('DELETE FROM public.t');
$server->sql('VACUUM public.t');
$server->sql(news($id));
my $now = $server->state($id);
like(result($waiter), qr/^1000\nwaited: $now\n0\nlater: $now$/, 'the answer is new, and so is what comes after');

# Large values survive: last_error may be stored out of line.
my $large = $server->create_payment;
$waiter = start("SELECT length(last_error::text) FROM stripe_lifecycle.payment_status('$large', '40 s')");
asleep($waiter);
my $long = join '', map { chr(97 + int rand 26) } 1 .. 100_000;
my $declined = sprintf '{"id":"evt_large","object":"event","type":"payment_intent.payment_failed","created":%d,"livemode":false,"data":{"object":'
  . '{"id":"pi_large","object":"payment_intent","amount":2000,"currency":"eur","status":"requires_payment_method","last_payment_error":{"type":"card_error","message":"%s"},"metadata":{"stripe_lifecycle_payment_id":"%s"}}}}', time, $long, $large;
$server->sql(sprintf 'SELECT stripe_lifecycle.ingest_webhook(%s::text, %s)', quote($declined), quote(sign($declined)));
cmp_ok(result($waiter), '>', 1000, 'a value that is stored out of line') if length $server->value("SELECT last_error FROM stripe_lifecycle.payments WHERE id = '$large'") > 10000;
result($waiter) if -e "/proc/$waiter->{pid}" && !-e $waiter->{out};

#
# Interrupted waits leave the session as it should be
#

$waiter = start("SET statement_timeout = '40s'; SELECT state FROM $status; SELECT 'alive: ' || count(*) FROM public.u");
asleep($waiter);
$server->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = '$waiter->{name}'");
like(result($waiter), qr/^alive: 1\n.*canceling statement due to user request/s, 'cancelled');
$waiter = start("BEGIN; SAVEPOINT s; SELECT state FROM $status; ROLLBACK TO s; SELECT 'alive: ' || count(*) FROM public.u; COMMIT");
asleep($waiter);
$server->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = '$waiter->{name}'");
like(result($waiter), qr/^alive: 1\n/, 'cancelled within a savepoint');
$waiter = start(qq{DO \$\$ DECLARE r record; BEGIN
	BEGIN FOR r IN SELECT state FROM $status LOOP NULL; END LOOP;
	EXCEPTION WHEN query_canceled THEN RAISE NOTICE 'caught, % alive', (SELECT count(*) FROM public.u); END;
	RAISE NOTICE 'again %', (SELECT count(*) FROM public.u); END \$\$});
asleep($waiter);
$server->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = '$waiter->{name}'");
like(result($waiter), qr/caught, 1 alive.*again 1/s, 'cancelled, and caught');
$waiter = start("SELECT state FROM $status");
asleep($waiter);
$server->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '$waiter->{name}'");
like(result($waiter), qr/terminating connection/, 'terminated');

#
# What wakes it, and what does not
#

my @latency;
foreach (1 .. 15)
{
	$waiter = start("SELECT state FROM $status");
	asleep($waiter);
	$server->sql(news($id));
	my $committed = time;
	result($waiter);
	push @latency, slurp_file("$waiter->{out}.time") - $committed;
}
note(sprintf 'from commit to the end of psql, median: %.1f ms', 1000 * median(@latency));
cmp_ok(median(@latency), '<', 0.25, 'a commit wakes it at once');

$waiter = start("SELECT state FROM $status");
asleep($waiter);
my $same = sprintf '{"id":"evt_same","object":"event","type":"payment_intent.created","created":%d,"livemode":false,"data":{"object":'
  . '{"id":"pi_%s","object":"payment_intent","amount":2000,"currency":"eur","status":"requires_payment_method","metadata":{"stripe_lifecycle_payment_id":"%s"}}}}', $clock, $id, $id;
is($server->ingest($same, sign($same)), 'recorded', 'an event that tells nothing new');
$server->sql('BEGIN; ' . news($id) . '; ROLLBACK');
$server->sql('BEGIN; SAVEPOINT s; ' . news($id) . '; ROLLBACK TO s; COMMIT');
$server->sql(news($large));
$server->sql('BEGIN; ' . news($id) . "; PREPARE TRANSACTION 'tap'");
sleep 0.3;
is(activity($waiter, 'state'), 'active', 'that, and what is rolled back, of another payment or only prepared, ends no wait');
$server->sql("COMMIT PREPARED 'tap'");
my $began = time;
result($waiter);
cmp_ok(time - $began, '<', 5, 'COMMIT PREPARED does');

# So does news of a call to Stripe alone.
$waiter = start("SELECT request_status FROM $status");
asleep($waiter);
$began = time;
$server->sql("UPDATE stripe_lifecycle.api_requests SET status = 'unknown' WHERE payment_id = '$id'");
is(result($waiter), 'unknown', "a request's new status is news");
cmp_ok(time - $began, '<', 5, 'at once');

# An idle wait asks nothing. What a session has scanned is counted once it has gone.
sub scans
{
	return $server->value("SELECT idx_scan + seq_scan FROM pg_stat_all_tables WHERE relid = 'stripe_lifecycle.payments'::regclass");
}
$server->disconnect;
my $before = scans();
$waiter = start("SELECT state FROM stripe_lifecycle.payment_status('$id', '2 s')");
result($waiter);
my $scans = eventually(sub { scans() - $before }, sub { $_[0] >= 2 }, 'a wait looks at the beginning and at the end');
cmp_ok($scans, '<=', 4, 'and not in between');

# Many at once
my @waiters = map { start("SELECT state FROM $status") } 1 .. 25;
asleep($_) foreach @waiters;
$server->sql(news($id));
$now = $server->state($id);
is_deeply([ map { result($_) } @waiters ], [ ($now) x 25 ], 'twenty-five sessions hear of one commit');

#
# No wait where there is nothing to wait for
#

$began = time;
my $known = $server->value("SELECT updated_at FROM stripe_lifecycle.payments WHERE id = '$id'");
isnt($server->value("SELECT state FROM stripe_lifecycle.payment_status('$id', '40 s', '2020-01-01')"), '', 'another updated_at than is known');
$server->sql("BEGIN ISOLATION LEVEL $_; SELECT state FROM $status; COMMIT") foreach 'REPEATABLE READ', 'SERIALIZABLE';
my $ended = $server->create_payment;
$server->sql(news($ended, 'succeeded'));
is($server->value("SELECT state FROM stripe_lifecycle.payment_status('$ended', '40 s')"), 'succeeded', 'a payment that has ended');
is($server->error("SELECT stripe_lifecycle.payment_status('01890000-0000-7000-8000-000000000000', '40 s')")->{sqlstate}, 'SL017', 'no such payment');
cmp_ok(time - $began, '<', 10, 'all of these at once');
$waiter = start("SELECT state FROM stripe_lifecycle.payment_status('$id', '40 s', '$known')");
asleep($waiter);
$server->sql(news($id));
is(result($waiter), $server->state($id), 'what is known is waited with');
is($server->error("SET statement_timeout = '300ms'; SELECT state FROM $status")->{sqlstate}, '57014', 'a session\'s statement timeout counts');
$server->sql('RESET statement_timeout');

#
# Through PostgREST: places
#

sub request
{
	my ($wait, @headers) = @_;
	my $out = "$dir/request" . ++$n;

	return { out => $out, pid => spawn(sub {
		my $answer = $rest->rpc('payment_status', { payment_id => $id, wait => $wait }, @headers);

		write_secret($out, "$answer->{status} $answer->{json}{state} " . ($answer->{seconds} < 10 ? 'soon' : 'late'));
	}) };
}

sub waiting { return $server->value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'authenticator' AND wait_event_type = 'Extension'"); }

my @requests = map { request('40 s') } 1 .. 5;
eventually(\&waiting, 5, 'five requests wait');
is($server->value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'authenticator' AND backend_xmin IS NOT NULL"), 0, 'none with a snapshot');
is($server->value("SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE usename = 'authenticator' AND relation IS NOT NULL"), 0, 'nor with a lock');
my $answer = $rest->rpc('payment_status', { payment_id => $id, wait => '40 s' });
cmp_ok($answer->{seconds}, '<', 10, 'a sixth one is answered at once');
is($answer->{status}, 200, 'with what there is');
$waiter = start("SELECT state FROM $status");
asleep($waiter);
ok(1, 'sessions that are not HTTP\'s need no place');
$server->sql(news($id));
$now = $server->state($id);
StripeLifecycle::finish($_->{pid}) foreach @requests;
is_deeply([ map { slurp_file($_->{out}) } @requests ], [ ("200 $now soon") x 5 ], 'news reach all of them');
result($waiter);

# However a wait ends, its place is free again.
foreach my $end ('pg_cancel_backend', 'pg_terminate_backend')
{
	@requests = map { request('40 s') } 1 .. 5;
	eventually(\&waiting, 5, "$end: five wait");
	$server->sql("SELECT $end(pid) FROM pg_stat_activity WHERE usename = 'authenticator' AND wait_event_type = 'Extension'");
	StripeLifecycle::finish($_->{pid}) foreach @requests;
	like(slurp_file($requests[0]{out}), qr/^503 /, "$end: they are told to come back");
	$rest->reconnect;
}
@requests = map { request('40 s') } 1 .. 5;
eventually(\&waiting, 5, 'there are five places again');
$server->sql(news($id));
StripeLifecycle::finish($_->{pid}) foreach @requests;
$server->sql("ALTER ROLE web_anon SET statement_timeout = '1s'");
$answer = $rest->rpc('payment_status', { payment_id => $id, wait => '40 s' });
is($answer->{status}, 200, 'a role with a short statement timeout gets its answer in time');
cmp_ok($answer->{seconds}, '<', 5, 'that is, soon');
$server->sql("ALTER ROLE web_anon SET statement_timeout = '30s'");
$server->configure('stripe_lifecycle.http_max_waiting = 0');
$rest->reconnect;
cmp_ok($rest->rpc('payment_status', { payment_id => $id, wait => '40 s' })->{seconds}, '<', 10, 'http_max_waiting = 0: nobody waits');

#
# A standby
#

$server->node->append_conf('pg_hba.conf', 'local replication all trust');
$server->reload;
$server->node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($server->node, 'base', has_streaming => 1);
$standby->start;
$waiter = start("SELECT state FROM $status", $standby);
asleep($waiter);
is($standby->safe_psql('postgres', "SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE application_name = '$waiter->{name}'"), 't', 'a wait on a standby holds no snapshot');
$server->sql(news($id));
$began = time;
is(result($waiter), $server->state($id), 'and sees what is replayed');
cmp_ok(time - $began, '<', 10, 'soon');
$standby->stop;

$rest->stop;
$server->stop;
unlike($server->log_text, qr/TRAP:|PANIC:|snapshot reference|resource owner|terminated by signal/, 'nothing crashed, nothing leaked');

done_testing();
