
# A worker that people can leave alone: it finds its work in every database, is
# in nobody's way, keeps to its pace, sends nothing from a copy, and has the
# rights of its role and no others.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use StripeLifecycle;

my $stripe = StripeLifecycle::StandIn->new(seed => 10);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
max_worker_processes = 6
stripe_lifecycle.worker_linger = 200
stripe_lifecycle.retry_base_delay = 50
stripe_lifecycle.retry_max_delay = 200
});
my $ours = q{SELECT count(*) FROM pg_stat_activity
	WHERE backend_type = 'stripe_lifecycle worker'};

sub reset_ledger { return $stripe->control('POST', 'reset', {}); }

# When requests arrived, in order; those of one account or key, if given.
sub arrival_times
{
	return sort { $a <=> $b } map { $_->{at} } @{ $stripe->ledger->{requests} };
}

# The most arrivals within any one second.
sub busiest_second
{
	my @at = @_;
	my ($most, $first) = (0, 0);

	foreach my $i (0 .. $#at)
	{
		$first++ while $at[$i] - $at[$first] >= 1;
		$most = $i - $first + 1 if $i - $first + 1 > $most;
	}
	return $most;
}

# Creates many payments in one transaction.
sub create_many
{
	my ($n, $prefix, %options) = @_;
	my $account = quote($options{stripe_account});

	$server->sql(
		"SELECT count(stripe_lifecycle.create_payment(100, 'eur',
			'$prefix-' || i, stripe_account => $account))
		   FROM generate_series(1, $n) i", $options{database});
	return;
}

sub unfinished
{
	my ($prefix, $database) = @_;

	return $server->value(
		"SELECT count(*) FROM stripe_lifecycle.api_requests r
		   JOIN stripe_lifecycle.payments p ON p.id = r.payment_id
		  WHERE p.idempotency_key LIKE '$prefix-%' AND r.status <> 'succeeded'",
		$database);
}

#
# Twenty databases
#

my @databases = map { "shop$_" } 1 .. 20;

$server->sql('CREATE DATABASE model TEMPLATE template0');
$server->sql('CREATE EXTENSION stripe_lifecycle', 'model');
$server->disconnect('model');
$server->sql("CREATE DATABASE $_ TEMPLATE model") foreach @databases;

foreach my $database (@databases)
{
	my $id = $server->create_payment(database => $database);

	$server->intent_known($id, "$database has its worker", $database);
	$server->disconnect($database);
}
eventually(sub { $server->value($ours) },
	0, 'idle databases hold no connection');

my $start = time;
is($server->error("DROP DATABASE $_")->{text}, '', "$_ can be dropped")
  foreach @databases[ 10 .. 14 ];
cmp_ok(time - $start, '<', 5, 'quickly');

# What waits is sent after a restart, in every database.
$stripe->stop;
$server->create_payment(database => $_, idempotency_key => 'waiting')
  foreach @databases[ 0 .. 4 ];
$server->stop;
$stripe->start;
$server->start;
eventually(
	sub {
		join ' ', map {
			$server->value(
				"SELECT payment_intent_id IS NOT NULL
				   FROM stripe_lifecycle.payments
				  WHERE idempotency_key = 'waiting'", $_)
		} @databases[ 0 .. 4 ];
	},
	't t t t t',
	'what waited is sent after a restart');
$server->disconnect($_) foreach @databases[ 0 .. 4 ];
eventually(sub { $server->value($ours) }, 0, 'and no connection is left');

#
# No process to be had: one warning, and it recovers by itself
#

# Besides two launchers there are four processes. Workers that linger make room.
sub all_served
{
	foreach my $database (@_)
	{
		eventually(
			sub {
				$server->value(
					'SELECT count(*) FROM stripe_lifecycle.payments
					  WHERE payment_intent_id IS NULL', $database);
			},
			0,
			"$database is served");
		$server->disconnect($database);
	}
	return;
}

my $log = $server->log_length;
$server->configure('stripe_lifecycle.worker_linger = 60s');
$server->create_payment(database => $_) foreach @databases[ 0 .. 9 ];
all_served(@databases[ 0 .. 9 ]);
unlike($server->log_text($log), qr/could not start a worker/,
	'workers that have nothing to do make room for others');
$server->configure('stripe_lifecycle.worker_linger = 200');

# Those that have something to do don't.
$stripe->fault(kind => 'delay', delay_ms => 4000, count => 4);
$server->create_payment(database => $_) foreach @databases[ 0 .. 6 ];
eventually(
	sub { $server->log_text($log) },
	qr/WARNING:  stripe_lifecycle could not start a worker: no background worker slot is free/,
	'running out of processes is a warning');
all_served(@databases[ 0 .. 6 ]);
my $warnings = () = $server->log_text($log) =~ /could not start a worker/g;
is($warnings, 1, 'one warning, however often it was tried');

#
# DROP EXTENSION with requests under way
#

sub slow_payments
{
	my ($n, $ms, $database) = @_;
	my $before = $stripe->count('requests');

	$stripe->fault(kind => 'delay', delay_ms => $ms, count => $n);
	my @ids = map { $server->create_payment(database => $database) } 1 .. $n;
	eventually(sub { $stripe->count('requests') - $before },
		$n, "$n slow requests are at Stripe");
	return @ids;
}

slow_payments(5, 3000, 'shop1');
$log = $server->log_length;
$start = time;
is($server->error('DROP EXTENSION stripe_lifecycle', 'shop1')->{text},
	'', 'DROP EXTENSION with requests in flight');
cmp_ok(time - $start, '<', 1, 'takes less than a second');
note(sprintf 'DROP EXTENSION: %.0f ms', 1000 * (time - $start));

# Answers to the old requests are not taken for those of the new ones, which
# have the same numbers.
$server->sql('CREATE EXTENSION stripe_lifecycle', 'shop1');
my @new = map { $server->create_payment(database => 'shop1') } 1 .. 5;
foreach my $id (@new)
{
	my $intent = $server->intent_known($id, 'a new extension starts afresh', 'shop1');
	my ($its) = $stripe->intents_of($id);

	is($intent, $its->{id}, 'with the answers to its own requests');
}
unlike(
	$server->log_text($log),
	qr/(?:ERROR|FATAL|PANIC|WARNING): /,
	'no process complains');

# Settling never waits long for somebody's lock, and others are not kept
# waiting by it.
my ($locked) = slow_payments(1, 500, 'shop1');
$server->session('shop1')->run(
	"BEGIN; SELECT FROM stripe_lifecycle.payments WHERE id = '$locked' FOR UPDATE"
);
eventually(
	sub { scalar $stripe->intents_of($locked) },
	1, 'a payment that is locked here is answered there');
my $second = StripeLifecycle::Session->new($server->node, 'shop1');
sleep 0.7;
my @times;
foreach my $n (1 .. 5)
{
	$start = time;
	my ($id) = $second->run(
		$server->create_payment_sql(idempotency_key => "beside lock $n"));
	my $stored = '';
	while ($stored !~ /pi_/ && time < $start + $DEADLINE)
	{
		($stored) = $second->run(
			"SELECT payment_intent_id FROM stripe_lifecycle.payments WHERE id = '$id'");
	}
	push @times, time - $start;
}
cmp_ok(median(@times), '<', 1, 'somebody\'s lock on one payment stops no other');
note(sprintf 'beside a lock: %s ms', join ' ', map { int 1000 * $_ } @times);
$server->sql('COMMIT', 'shop1');
$server->intent_known($locked, 'its answer is stored when the lock is gone', 'shop1');
$second->close;

# Nor is a locked table more than a reason to wait: what an update of the
# extension would take, it gets at once, and the same worker goes on after it.
$server->configure('stripe_lifecycle.worker_linger = 60s');
my ($answered) = slow_payments(1, 700, 'shop1');
my $who = q{SELECT pid FROM pg_stat_activity
	WHERE backend_type = 'stripe_lifecycle worker' AND datname = 'shop1'};
my $worker = $server->value($who);
$start = time;
$server->sql(
	'BEGIN; LOCK TABLE stripe_lifecycle.payments, stripe_lifecycle.api_requests,
		stripe_lifecycle.api_attempts IN ACCESS EXCLUSIVE MODE', 'shop1');
cmp_ok(time - $start, '<', 1, 'tables are locked at once, with a request in flight');
sleep 2;
$server->sql('COMMIT', 'shop1');
$server->intent_known($answered, 'then the answer is stored', 'shop1');
$server->intent_known($server->create_payment(database => 'shop1'),
	'and more is sent', 'shop1');
is($server->value($who), $worker, 'by the worker that was there before');
$server->configure('stripe_lifecycle.worker_linger = 200');
$server->disconnect('shop1');

#
# stripe_lifecycle.databases
#

my $bad = $server->error(
	q{ALTER SYSTEM SET stripe_lifecycle.databases = 'a,,b'});
like($bad->{text}, qr/list of database names/, 'a list that is none is refused');
$server->configure(q{stripe_lifecycle.databases = 'postgres, "shop2"'});
my $served = $server->create_payment(database => 'shop2');
$server->intent_known($served, 'a database in the list is served', 'shop2');
my $unserved;
eventually(
	sub {
		my $answer = $server->error($server->create_payment_sql, 'shop3');

		$unserved = $answer->{output};
		$answer->{text};
	},
	qr/WARNING:.*does not name database "shop3"/,
	'one that is not says so when work is queued');
$server->restart;
$served = $server->create_payment(database => 'shop2');
$server->intent_known($served, 'after a restart the same is served', 'shop2');
is($server->payment($unserved, 'payment_intent_id', 'shop3'),
	undef, 'and the other is not');
$server->configure(q{stripe_lifecycle.databases = ''});
$server->intent_known($unserved, 'a reload takes effect', 'shop3');
$server->disconnect('shop2', 'shop3');

# A worker that is at work leaves when its database is taken off the list.
$server->configure('stripe_lifecycle.worker_linger = 60s');
$server->intent_known($server->create_payment(database => 'shop4'),
	'a worker is at work', 'shop4');
$server->configure(q{stripe_lifecycle.databases = 'postgres'});
eventually(sub { $server->workers('shop4') },
	0, 'and leaves when its database is taken off the list');
$server->configure(q{stripe_lifecycle.databases = ''},
	'stripe_lifecycle.worker_linger = 200');
$server->disconnect('shop4');

#
# Pace
#

$server->configure('stripe_lifecycle.max_requests_per_second = 20');
reset_ledger();
create_many(60, 'paced');
eventually(sub { unfinished('paced') }, 0, 'sixty payments are sent');
my @at = arrival_times();
is(scalar @at, 60, 'once each');
cmp_ok($at[-1] - $at[0], '>', 2, '60 at 20 a second take their time');
cmp_ok($at[-1] - $at[0], '<', 8, 'and no more');
cmp_ok(busiest_second(@at), '<=', 20, 'no second sees more than the cap');
note(sprintf '60 requests in %.2f s, busiest second %d',
	$at[-1] - $at[0], busiest_second(@at));

# Two databases share what the account has.
reset_ledger();
create_many(30, 'shared');
create_many(30, 'shared', database => 'shop5');
eventually(sub { unfinished('shared') + unfinished('shared', 'shop5') },
	0, 'two databases at once');
@at = arrival_times();
cmp_ok(busiest_second(@at), '<=', 20, 'keep to the cap together');
note(sprintf '2 x 30 requests in %.2f s, busiest second %d',
	$at[-1] - $at[0], busiest_second(@at));
$server->disconnect('shop5');

# An account with a long queue is in nobody's way, and accounts count apart.
reset_ledger();
create_many(100, 'flood');
$start = time;
my $connected = $server->create_payment(stripe_account => 'acct_other');
$server->intent_known($connected, 'another account is not behind it in the queue');
cmp_ok(time - $start, '<', 1, 'and is served at once');
cmp_ok(unfinished('flood'), '>', 20, 'while the queue is long');
note(sprintf 'beside a queue of 100: %.0f ms', 1000 * (time - $start));

# Waiting for a token is no work.
my $pid = $server->value(
	q{SELECT pid FROM pg_stat_activity
	   WHERE backend_type = 'stripe_lifecycle worker' AND datname = 'postgres'});
my $ticks = sub { (split ' ', slurp_file("/proc/$pid/stat"))[13] };
SKIP:
{
	skip 'no /proc', 1 unless -r "/proc/$pid/stat";
	my $before = $ticks->();

	sleep 1;
	cmp_ok($ticks->() - $before, '<', 50, 'it does not spin while it waits')
	  if -r "/proc/$pid/stat";
}
eventually(sub { unfinished('flood') }, 0, 'the queue is worked off');

# A 429 slows its account down, and nobody else.
reset_ledger();
$stripe->fault(kind => '429', count => 1);
create_many(60, 'throttled');
eventually(sub { unfinished('throttled') }, 0, 'after a 429 all are sent');
@at = arrival_times();
cmp_ok($at[-1] - $at[0], '>', 3.5, 'but more slowly');
note(sprintf 'after a 429: %d requests in %.2f s', scalar @at,
	$at[-1] - $at[0]);

# A limit of one object says nothing about the account.
$server->configure('stripe_lifecycle.max_requests_per_second = 1000');
reset_ledger();
my $fresh = 'acct_fresh';
$stripe->fault(
	kind => '429',
	count => 1,
	headers => { 'Stripe-Rate-Limited-Reason' => 'resource-specific' });
create_many(200, 'object', stripe_account => $fresh);
eventually(sub { unfinished('object') }, 0, 'a limit of one object');
@at = arrival_times();
cmp_ok($at[-1] - $at[0], '<', 3, 'does not slow the account down');
note(sprintf '201 requests at 1000 a second: %.2f s', $at[-1] - $at[0]);
$server->configure('stripe_lifecycle.max_requests_per_second = 0');

#
# The window
#

$server->configure('stripe_lifecycle.max_in_flight = 4');
reset_ledger();
my $connections = $stripe->count('connections');
# of an account that no 429 has slowed down
$stripe->fault(kind => 'delay', delay_ms => 2000, count => 1);
create_many(60, 'window', stripe_account => 'acct_window');
eventually(
	sub {
		$server->value(
			q{SELECT count(*) FILTER (WHERE status = 'succeeded') || ' ' ||
				count(*) FILTER (WHERE status = 'in_flight')
			   FROM stripe_lifecycle.api_requests r
			   JOIN stripe_lifecycle.payments p ON p.id = r.payment_id
			  WHERE p.idempotency_key LIKE 'window-%'});
	},
	'59 1',
	'one slow request does not delay the others');
eventually(sub { unfinished('window') }, 0, 'and is stored in the end');
my $opened = $stripe->count('connections') - $connections;
cmp_ok($opened, '<=', 6, 'connections are used again')
  or diag("$opened connections for 60 requests");
note("$opened connections for 60 requests, 4 at once");
$stripe->fault(kind => 'delay', delay_ms => 300, count => 20);
create_many(20, 'narrow', stripe_account => 'acct_window');
my ($most, $in_flight) = (0);
do
{
	$in_flight = $server->value(
		q{SELECT count(*) FROM stripe_lifecycle.api_requests
		   WHERE status = 'in_flight'});
	$most = $in_flight if $in_flight > $most;
} while (unfinished('narrow') > 0);
is($most, 4, 'no more than max_in_flight at once');
$server->configure('stripe_lifecycle.max_in_flight = 16');

#
# Copies
#

eventually(sub { $server->value($ours) }, 0, 'the worker leaves');
my $served_by = $server->row('SELECT * FROM stripe_lifecycle.worker_state');
is( $served_by->{system_identifier},
	$server->value('SELECT system_identifier FROM pg_control_system()'),
	'the database remembers which server sent for it');
ok($served_by->{host} && $served_by->{port} && $served_by->{timeline} == 1,
	'and where that was');

$stripe->stop;
my $original = $server->create_payment(idempotency_key => 'copied');
$server->disconnect('postgres');
$server->session('template1');
eventually(
	sub {
		$server->error('CREATE DATABASE copied TEMPLATE postgres', 'template1')
		  ->{text};
	},
	'',
	'a database is copied with work waiting');
$server->disconnect('template1');
$stripe->start;
$log = $server->log_length;
my $copy = $server->error($server->create_payment_sql(idempotency_key => 'in copy'),
	'copied');
like($copy->{text}, qr/WARNING:.*is paused.*this is a copy/s,
	'the copy says that it is one when work is queued');
eventually(
	sub {
		$server->value(
			'SELECT paused, paused_reason, paused_by
			   FROM stripe_lifecycle.worker_state', 'copied');
	},
	qr/^t\|this is a copy of database \d+ of system \d+.*\|stripe_lifecycle_worker$/,
	'its worker pauses it');
like(
	$server->log_text($log),
	qr/WARNING:  stripe_lifecycle has paused this database/,
	'and says so in the log');
$server->intent_known($original, 'the original goes on');
is(scalar $stripe->arrivals("stripe_lifecycle-$copy->{output}-create"),
	0, 'nothing is sent from the copy');
is(scalar $stripe->arrivals("stripe_lifecycle-$original-create"),
	1, 'so nothing is sent twice');
$server->restart;
$server->intent_known($server->create_payment, 'after a restart');
is($server->payment($copy->{output}, 'payment_intent_id', 'copied'),
	undef, 'the copy is still paused');
like($server->health('paused', 'copied'),
	qr/^warning: paused by stripe_lifecycle_worker since .*: this is a copy of/,
	'health() says so');
like($server->health('moved', 'copied'), qr/^critical: this database is a copy/, 'and why');
$server->sql('SELECT stripe_lifecycle.resume_worker()', 'copied');
$server->intent_known($copy->{output}, 'until somebody resumes it', 'copied');
is( $server->value(
		'SELECT database_oid = (SELECT oid FROM pg_database
			WHERE datname = current_database())
		   FROM stripe_lifecycle.worker_state', 'copied'),
	't',
	'then it is an original');

# A copy of another server: what a restored dump looks like.
$server->sql(
	q{UPDATE stripe_lifecycle.worker_state SET system_identifier = '17'}, 'copied');
like(
	$server->error($server->create_payment_sql, 'copied')->{text},
	qr/paused.*of system 17/s,
	'another system identifier means a copy, too');
$server->sql('SELECT stripe_lifecycle.resume_worker()', 'copied');
eventually(
	sub {
		$server->value(
			'SELECT port IS NOT NULL FROM stripe_lifecycle.worker_state', 'copied');
	},
	't',
	'whoever sends next leaves his name');
eventually(sub { $server->workers('copied') }, 0, 'and then leaves');

# Somebody resumes it just when its worker is about to pause it: the worker gives way.
$server->sql(
	q{
	CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF current_user = 'stripe_lifecycle_worker' THEN PERFORM pg_sleep(1.5); END IF;
		RETURN NULL;
	END $$;
	-- it has looked at the row by then, and has no lock on it
	CREATE TRIGGER dawdle BEFORE UPDATE ON stripe_lifecycle.worker_state FOR EACH STATEMENT EXECUTE FUNCTION dawdle();
	UPDATE stripe_lifecycle.worker_state SET system_identifier = '17'}, 'copied');
my $resumed = $server->error($server->create_payment_sql(idempotency_key => 'resumed in time'), 'copied')->{output};
eventually(sub { $server->value(q{SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'stripe_lifecycle worker' AND wait_event = 'PgSleep'}) },
	1, 'its worker is about to pause it');
$server->sql('SELECT stripe_lifecycle.resume_worker()', 'copied');
$server->intent_known($resumed, 'what was resumed meanwhile is not paused', 'copied');
$server->sql('DROP TRIGGER dawdle ON stripe_lifecycle.worker_state; DROP FUNCTION dawdle()', 'copied');
eventually(sub { $server->workers('copied') }, 0, 'and the worker leaves');

# Another host: goes on, unless it is told not to.
is($server->health('moved', 'copied'),
	'ok: the queue was last served by this server', 'health() sees nothing wrong');
$server->sql(q{UPDATE stripe_lifecycle.worker_state SET host = 'elsewhere'},
	'copied');
like($server->health('moved', 'copied'),
	qr/^warning: last served on host elsewhere, port \d+, timeline 1; now \S+, \d+, 1$/,
	'health() warns of another host');
$server->intent_known($server->create_payment(database => 'copied'),
	'on another host it goes on', 'copied');
like(
	$server->value(
		'SELECT moved_from FROM stripe_lifecycle.worker_state', 'copied'),
	qr/^host elsewhere, port \d+, timeline 1$/,
	'and remembers where it was');
like($server->health('moved', 'copied'),
	qr/^warning: moved from host elsewhere, port \d+, timeline 1 at /,
	'health() warns of that, ...');
$server->sql('SELECT stripe_lifecycle.resume_worker()', 'copied');
is($server->health('moved', 'copied'),
	'ok: the queue was last served by this server', '... until an operator has seen it');
$server->configure('stripe_lifecycle.pause_on_move = on');
eventually(sub { $server->workers('copied') }, 0, 'the worker leaves again');
$server->sql('UPDATE stripe_lifecycle.worker_state SET timeline = 7', 'copied');
$server->create_payment(database => 'copied');
eventually(
	sub {
		$server->value(
			'SELECT paused_reason FROM stripe_lifecycle.worker_state', 'copied');
	},
	qr/ran last at host .* timeline 7 and is now at host .* timeline 1$/,
	'with pause_on_move it pauses');
$server->configure('stripe_lifecycle.pause_on_move = off');
$server->disconnect('copied');

#
# The worker's role
#

is( $server->value(
		q{SELECT rolsuper, rolcanlogin, rolcreaterole, rolinherit
		   FROM pg_roles WHERE rolname = 'stripe_lifecycle_worker'}),
	'f|f|f|t',
	'the role has no attributes');

# A trigger as any user who has TRIGGER on the table might write one. It tries
# everything that would make it more than the worker's role, whenever the
# worker fires it.
$server->sql(
	q{
CREATE ROLE mallory LOGIN;
GRANT USAGE ON SCHEMA stripe_lifecycle TO mallory;
GRANT TRIGGER ON stripe_lifecycle.payments TO mallory;
GRANT CREATE ON DATABASE postgres TO mallory;
SET SESSION AUTHORIZATION mallory;
CREATE SCHEMA mallory;
GRANT USAGE ON SCHEMA mallory TO PUBLIC;
CREATE TABLE mallory.tries (who text, what text, error text);
GRANT INSERT ON mallory.tries TO PUBLIC;
CREATE FUNCTION mallory.try() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	what text;
BEGIN
	IF current_user <> 'stripe_lifecycle_worker' THEN
		RETURN NEW;
	END IF;
	FOREACH what IN ARRAY ARRAY[
		'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'RESET ROLE',
		'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION DEFAULT',
		'SET ROLE mallory', 'ALTER ROLE mallory SUPERUSER',
		'ALTER ROLE stripe_lifecycle_worker SUPERUSER',
		'CREATE ROLE mallory2 SUPERUSER',
		'GRANT pg_read_all_data TO mallory', 'COPY mallory.tries TO PROGRAM ''true''',
		'SET session_replication_role = replica',
		'ALTER TABLE stripe_lifecycle.payments DISABLE TRIGGER stripe_lifecycle_guard',
		'DELETE FROM stripe_lifecycle.payment_transitions',
		'SELECT stripe_lifecycle.pause_worker()']
	LOOP
		BEGIN
			EXECUTE what;
			INSERT INTO mallory.tries VALUES (current_user, what, NULL);
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO mallory.tries VALUES (current_user, what, SQLERRM);
		END;
	END LOOP;
	-- what outlives the transaction must not change the worker's statements
	PERFORM set_config('search_path', 'mallory, pg_catalog', false);
	PERFORM set_config('lock_timeout', '1', false);
	PERFORM set_config('statement_timeout', '1', false);
	PERFORM set_config('default_transaction_read_only', 'on', false);
	PERFORM set_config('synchronous_commit', 'off', false);
	RETURN NEW;
END $$;
CREATE FUNCTION mallory.later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO mallory.tries VALUES (current_user, 'deferred', 'none');
	RETURN NEW;
END $$;
CREATE TRIGGER mallory AFTER UPDATE ON stripe_lifecycle.payments
	FOR EACH ROW EXECUTE FUNCTION mallory.try();
CREATE CONSTRAINT TRIGGER mallory_later AFTER UPDATE ON stripe_lifecycle.payments
	DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION mallory.later();
RESET SESSION AUTHORIZATION});
$log = $server->log_length;
foreach my $n (1 .. 3)
{
	my $id = $server->create_payment;

	$server->intent_known($id, "the worker stores its answers, time $n");
}
is( $server->value(
		q{SELECT string_agg(DISTINCT who || ': ' || what, ', ')
		   FROM mallory.tries WHERE error IS NULL}),
	'',
	'a trigger that the worker fires gets no further than its role');
is( $server->value(
		q{SELECT count(DISTINCT what), string_agg(DISTINCT who, ', ')
		   FROM mallory.tries}),
	'16|stripe_lifecycle_worker',
	'whatever it tried, also at commit');
is( $server->value(q{SELECT count(*) FROM pg_roles WHERE rolsuper}),
	1, 'there is no new superuser');
$server->sql(
	'DROP TRIGGER mallory ON stripe_lifecycle.payments;
	 DROP TRIGGER mallory_later ON stripe_lifecycle.payments');

# Events that came before the worker had stored the PaymentIntent are applied
# by the worker: the audit says so.
$stripe->webhooks(mode => 'pull');
$stripe->fault(kind => 'delay', delay_ms => 600, count => 1);
my $early = $server->create_payment(
	metadata => { map { ("k$_" => 'v') } 1 .. 50 },
	params => { payment_method => 'pm_card_visa', confirm => \1,
		return_url => 'https://example.com/' });
eventually(sub { scalar $stripe->intents_of($early) || $stripe->ledger->{counts}{payment_intents} },
	qr/./, 'Stripe has the payment');
$server->deliver_webhooks($stripe);
eventually(
	sub { $server->deliver_webhooks($stripe); $server->state($early) },
	'succeeded', 'the payment succeeds');
my $roles = $server->value(
	"SELECT string_agg(role, ' ' ORDER BY seq) FROM stripe_lifecycle.payment_transitions
	  WHERE payment_id = '$early'");
is($roles, 'postgres stripe_lifecycle_worker',
	'which the worker did, and the audit says so');

# Two databases share the role, and it survives the extension.
$server->sql('DROP EXTENSION stripe_lifecycle', 'shop6');
is( $server->value(
		q{SELECT count(*) FROM pg_roles WHERE rolname = 'stripe_lifecycle_worker'}
	),
	1, 'DROP EXTENSION leaves the role');
$server->intent_known($server->create_payment(database => 'shop7'),
	'which other databases use', 'shop7');
$server->sql('ALTER ROLE stripe_lifecycle_worker LOGIN');
like(
	$server->error('CREATE EXTENSION stripe_lifecycle', 'shop6')->{text},
	qr/attributes that a worker must not have/,
	'a role that could do more is refused');
$server->sql('ALTER ROLE stripe_lifecycle_worker NOLOGIN');
is($server->error('CREATE EXTENSION stripe_lifecycle', 'shop6')->{text},
	'', 'and accepted when that is mended');

$server->audit_is_sound;
$server->stop;
unlike($server->log_text, qr/PANIC|TRAP|segfault|terminated by signal/,
	'no process crashed');

done_testing();
