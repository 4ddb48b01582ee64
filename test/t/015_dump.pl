# A dump is a whole copy. A database with 10,000 payments in all states comes back identical by
# pg_dump | psql, by pg_restore -j4, by --data-only and by pg_dumpall; with its guards on, its audit trail
# proven, its sequences going on. It knows itself for a copy, and sends nothing until resume_worker().

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SealedTrail;
use StripeLifecycle;
use Test::More;
use Time::HiRes qw(time);

my $PAYMENTS = 10_000;
my @TABLES = qw(payments payment_transitions webhook_events api_requests api_attempts
  reconcile_state operator_actions audit_checkpoints worker_state);
my @SEQUENCES = qw(api_requests_id_seq operator_actions_id_seq payment_transitions_position_seq);

my $stripe = StripeLifecycle::StandIn->new(seed => 15);
my $server = StripeLifecycle->new('original', $stripe,
	conf => 'stripe_lifecycle.reconcile_interval = 1h');
my $other = StripeLifecycle->new('elsewhere', $stripe,
	conf => "stripe_lifecycle.databases = 'postgres'");

# One webhook, as a statement.
my $clock = 1_700_000_000;

sub webhook
{
	my ($n, $type, $payment, %more) = @_;
	my $status = {
		requires_action => 'requires_action',
		processing => 'processing',
		payment_failed => 'requires_payment_method',
		canceled => 'canceled',
		succeeded => 'succeeded'
	}->{$type};
	my $intent = $more{intent} // "pi_$n";
	my $id = 'evt_' . ++$clock;
	my $body = JSON::PP->new->canonical->encode({
		id => $id,
		object => 'event',
		api_version => '2026-10-28.endive',
		created => $more{created} // $clock,
		type => $status ? "payment_intent.$type" : $type,
		livemode => JSON::PP::false,
		data => {
			object => {
				id => $intent,
				object => $status ? 'payment_intent' : 'charge',
				status => $status,
				amount => $more{amount} // 1000 + $n,
				currency => $n % 2 ? 'eur' : 'usd',
				amount_received => $type eq 'succeeded' ? 1000 + $n : 0,
				metadata => $payment ? { stripe_lifecycle_payment_id => $payment } : {},
				last_payment_error => $type eq 'payment_failed' ?
				  { type => 'card_error', code => 'card_declined', message => "no\\pe" } : undef
			}
		}
	});
	return $server->ingest_sql($body, StripeLifecycle::sign($body)) . ";\n";
}

# The life of payment n, by its kind.
my @LIVES = (
	sub { '' },
	sub { webhook($_[0], 'requires_action', $_[1]) },
	sub { webhook($_[0], 'processing', $_[1]) },
	sub { webhook($_[0], 'succeeded', $_[1]) },
	sub { webhook($_[0], 'payment_failed', $_[1]) },
	sub { webhook($_[0], 'canceled', $_[1]) },
	sub { webhook($_[0], 'requires_action', $_[1]) . webhook($_[0], 'payment_failed', $_[1]) },
	sub { webhook($_[0], 'payment_failed', $_[1]) . webhook($_[0], 'succeeded', $_[1]) },
	sub { join '', map { webhook($_[0], $_, $_[1]) } qw(requires_action processing succeeded) },
	sub { webhook($_[0], 'processing', $_[1]) . webhook($_[0], 'succeeded', $_[1], amount => 1) },
	sub { webhook($_[0], 'processing', $_[1]) . webhook($_[0], 'requires_action', $_[1], created => 5) },
	sub { webhook($_[0], 'charge.succeeded', $_[1]) . webhook($_[0], 'succeeded', undef) });

# ---------- the original ----------

# a few by the worker, so that there are attempts, PaymentIntents and a name in worker_state
my @sent = map { $server->create_payment(amount => 1000 + $_) } 1 .. 20;
$server->intent_known($_) foreach @sent;
$stripe->pay($server->payment($_, 'client_secret'), 'pm_card_visa') foreach @sent[ 0 .. 9 ];
$server->deliver_webhooks($stripe);
$server->sql("SELECT stripe_lifecycle.pause_worker('a dump''s \"test\"\twith\\odd\ntext')");

my @ids = split /\n/, $server->sql(
	"SELECT stripe_lifecycle.create_payment(1000 + n, CASE n % 2 WHEN 1 THEN 'eur' ELSE 'usd' END, 'key ' || n,
		description => E'tab\\t, newline\\n, backslash \\\\, \\\\N and \\u00fc ' || n,
		decline_policy => CASE WHEN n % @{[scalar @LIVES]} = 6 THEN 'retry' END,
		metadata => '{\"a\": \"\\\"b\\\"\"}', params => '{\"setup_future_usage\": \"off_session\"}')
	   FROM generate_series(1, $PAYMENTS) n");
my $lives = "$server->{dir}/lives.sql";
StripeLifecycle::write_secret($lives, join '',
	map { $LIVES[ $_ % @LIVES ]->($_, $ids[ $_ - 1 ]) } 1 .. $PAYMENTS);
$server->node->command_ok(
	[ 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-c', 'SET client_min_messages = error',
		'-f', $lives, $server->node->connstr('postgres') ],
	"$PAYMENTS payments have lived");

# operators decide on some; some requests are dead
my @conflicts = split /\n/, $server->sql(
	'SELECT event_id FROM stripe_lifecycle.conflicts ORDER BY event_id LIMIT 30');
$server->sql("SELECT stripe_lifecycle.resolve_conflict('$_', 'accept', 'seen')") foreach @conflicts[ 0 .. 9 ];
$server->sql("SELECT stripe_lifecycle.resolve_conflict('$_', 'dismiss')") foreach @conflicts[ 10 .. 19 ];
$server->sql(q{UPDATE stripe_lifecycle.api_requests SET next_attempt_at = '2100-01-01'
	WHERE status = 'queued' AND next_attempt_at <> 'infinity'});
$server->sql(q{UPDATE stripe_lifecycle.api_requests SET status = 'unknown', attempts = 3,
	first_sent_at = now() - interval '2 days', lookup_at = '2100-01-01' WHERE id % 97 = 0});
$server->sql(q{UPDATE stripe_lifecycle.api_requests SET status = 'rejected', finished_at = now(), http_status = 400,
	last_error = '{"code": "parameter_unknown"}' WHERE id % 89 = 0});
$server->sql('SELECT stripe_lifecycle.resume_worker()');
$server->intent_known($server->create_payment, 'the original sends');

is($server->value(q{SELECT string_agg(DISTINCT state::text, ' ' ORDER BY state::text) FROM stripe_lifecycle.payments}),
	'created failed processing requires_action succeeded', 'payments of all states');
is($server->value(q{SELECT string_agg(DISTINCT outcome::text, ' ' ORDER BY outcome::text) FROM stripe_lifecycle.webhook_events}),
	'applied conflict ignored recorded stale unmatched', 'events of all outcomes');
is($server->value(q{SELECT string_agg(DISTINCT status::text, ' ' ORDER BY status::text) FROM stripe_lifecycle.api_requests}),
	'queued rejected succeeded unknown', 'requests of all kinds');
is($server->value('SELECT paused FROM stripe_lifecycle.worker_state'), 'f', 'the original sends');
is($server->value('SELECT count(*) FROM stripe_lifecycle.verify_audit()'), 0, 'its audit trail is sound');

# sealed, too
my $key_file = "$server->{dir}/checkpoint_key";
my $key = make_key();
StripeLifecycle::write_secret($key_file, $key);
$server->configure("stripe_lifecycle.checkpoint_key_file = '$key_file'", 'stripe_lifecycle.checkpoint_interval = 1s');
eventually(sub { $server->value('SELECT coalesce(sum(leaves), 0) = (SELECT count(*) FROM stripe_lifecycle.payment_transitions)
	FROM stripe_lifecycle.audit_checkpoints') }, 't', 'all of the trail is sealed');

is(join(' ', grep { !$server->value("SELECT count(*) FROM stripe_lifecycle.$_") } @TABLES), '', 'no table is empty');

# nothing moves from here on: the worker has nothing to do, and no access any more
$server->configure("stripe_lifecycle.databases = 'none'");
eventually(sub { $server->workers }, 0, 'its worker is gone');

# A line a table: its rows, whatever their order.
sub checksums
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, join ";\n",
		(map { "SELECT '$_', count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM stripe_lifecycle.$_ t" }
			@TABLES),
		(map { "SELECT '$_', last_value, is_called FROM stripe_lifecycle.$_" } @SEQUENCES));
}

my $original = checksums($server->node, 'postgres');
note($original);

# ---------- the copies ----------

# What has to be true of every copy, whichever way it came.
sub is_a_copy
{
	my ($node, $database, $how) = @_;
	my $run = sub { $node->safe_psql($database, $_[0]) };

	is(checksums($node, $database), $original, "$how: identical, table by table and sequence by sequence");
	is($run->('SELECT count(*) FROM stripe_lifecycle.verify_audit()'), 0, "$how: the audit trail is proven");
	is($run->('SELECT count(*) FROM stripe_lifecycle.verify_checkpoints(public_keys => \'' . public_key($key) . '\')'), 0,
		"$how: its seals are whole");
	is($run->(q{SELECT status FROM stripe_lifecycle.health() WHERE check_name = 'guards'}), 'ok',
		"$how: the guards are on");
	is($run->('SELECT count(*) FROM stripe_lifecycle.in_use'), 0, "$how: not in use yet");
	foreach my $write (
		q{UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE state = 'created'},
		q{UPDATE stripe_lifecycle.payment_transitions SET note = 'mine'},
		q{DELETE FROM stripe_lifecycle.webhook_events},
		q{INSERT INTO stripe_lifecycle.payments (id, idempotency_key, state, amount, currency)
			VALUES (gen_random_uuid(), 'by hand', 'succeeded', 1, 'usd')},
		q{INSERT INTO stripe_lifecycle.payment_transitions
			SELECT payment_id, seq + 100, to_state, 'succeeded', now(), 'webhook', 'evt_x', 'x', now(), role, NULL,
				amount, currency, livemode, sha256('x')
			  FROM stripe_lifecycle.payment_transitions LIMIT 1})
	{
		my ($code, undef, $error) = $node->psql($database, "\\set VERBOSITY sqlstate\n$write");

		like($error, qr/ERROR:  SL00[1-5]/, "$how: refused: " . ($write =~ /(\S+ \S+ \S+)/)[0]);
	}
	return;
}

sub new_database
{
	my ($name) = @_;

	$other->sql("CREATE DATABASE $name TEMPLATE template0");
	return $other->node->connstr($name);
}

my $source = $server->node->connstr('postgres');
my $folder = $server->{dir};
my %took;

sub take_dump
{
	return command_checks_all([@_], 0, [qr/^$/], [qr/^$/], "$_[0] $_[1]: without a word");
}

sub restore
{
	my ($how, @command) = @_;
	my $start = time;

	$other->node->command_checks_all(\@command, 0, [qr/^$/], [qr/^$/], "$how: restored without a word");
	$took{$how} = time - $start;
	return;
}

take_dump('pg_dump', '-f', "$folder/plain.sql", $source);
restore('psql', 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/plain.sql",
	new_database('plain'));
is_a_copy($other->node, 'plain', 'psql');

take_dump('pg_dump', '-Fc', '-f', "$folder/custom", $source);
restore('pg_restore -j4', 'pg_restore', '-j4', '-d', new_database('custom'), "$folder/custom");
is_a_copy($other->node, 'custom', 'pg_restore -j4');

# payments wait for their trails, however many jobs there are
foreach (2, 3, 8)
{
	restore("pg_restore -j$_", 'pg_restore', "-j$_", '-d', new_database("again_$_"), "$folder/custom");
	$other->sql("DROP DATABASE again_$_");
}

# without their trails they wait in vain
my ($contents) = run_command([ 'pg_restore', '-l', "$folder/custom" ]);
$contents =~ s/^.* TABLE DATA \S+ payment_transitions .*\n//m or die 'no trails in the dump';
StripeLifecycle::write_secret("$folder/contents", $contents);
my (undef, $complaints) = run_command(
	[ 'pg_restore', '-j4', '-L', "$folder/contents", '-d', new_database('trailless'), "$folder/custom" ]);
like($complaints, qr/COPY failed for table "payments": ERROR:  payment \S+ cannot go from nothing to/,
	'payments without their trails are refused');
is($other->value('SELECT count(*) FROM stripe_lifecycle.payments', 'trailless'), 0, 'every one of them');

my $connection = new_database('only_data');
$other->sql('CREATE EXTENSION stripe_lifecycle', 'only_data');
$other->disconnect;
take_dump('pg_dump', '--data-only', '-f', "$folder/data.sql", $source);
restore('--data-only', 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/data.sql",
	$connection);
is_a_copy($other->node, 'only_data', '--data-only');

# as statements, in one transaction
$connection = new_database('inserts');
take_dump('pg_dump', '--rows-per-insert=100', '-f', "$folder/inserts.sql", $source);
restore('--inserts', 'psql', '-X', '-q', '-1', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-f',
	"$folder/inserts.sql", $connection);
is_a_copy($other->node, 'inserts', '--inserts');

# as a folder, in one transaction, in sections, of the schema alone
take_dump('pg_dump', '-Fd', '-j2', '-f', "$folder/folder", $source);
restore('-Fd, pg_restore -j2', 'pg_restore', '-j2', '-d', new_database('of_folder'), "$folder/folder");
is_a_copy($other->node, 'of_folder', '-Fd, pg_restore -j2');
restore('pg_restore -1', 'pg_restore', '-1', '-d', new_database('at_once'), "$folder/custom");
is_a_copy($other->node, 'at_once', 'pg_restore -1');
$connection = new_database('sections');
restore("--section=$_", 'pg_restore', "--section=$_", '-j3', '-d', $connection, "$folder/custom")
  foreach qw(pre-data data post-data);
is_a_copy($other->node, 'sections', '--section');
$connection = new_database('one_schema');
$other->sql('CREATE EXTENSION stripe_lifecycle', 'one_schema');
$other->disconnect;
take_dump('pg_dump', '--schema=stripe_lifecycle', '--data-only', '-f', "$folder/schema.sql", $source);
restore('--schema --data-only', 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/schema.sql",
	$connection);
is_a_copy($other->node, 'one_schema', '--schema --data-only');

# by another superuser than the one who owns the original, to whom the dump gives the schema
$other->sql('CREATE ROLE second_admin SUPERUSER LOGIN');
restore('another superuser', 'pg_restore', '-j4', '-d', new_database('of_another') . ' user=second_admin', "$folder/custom");
is_a_copy($other->node, 'of_another', 'another superuser');
is($other->value(q{SELECT string_agg(DISTINCT o.rolname, ' ') FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
	JOIN pg_roles o ON o.oid IN (e.extowner, n.nspowner) WHERE extname = 'stripe_lifecycle'}, 'of_another'),
	'second_admin', 'another superuser: owns all of it');
$other->sql("DROP DATABASE $_") foreach qw(of_folder at_once sections one_schema);
$other->disconnect('of_another');
$other->sql('DROP DATABASE of_another');
$other->sql('DROP ROLE second_admin');

# by a role that is none, into an extension that is there
$connection = new_database('of_a_role');
$other->sql(q{CREATE EXTENSION stripe_lifecycle; CREATE ROLE restorer LOGIN;
	GRANT USAGE ON SCHEMA stripe_lifecycle TO restorer;
	GRANT USAGE ON TYPE stripe_lifecycle.payment_state, stripe_lifecycle.event_outcome, stripe_lifecycle.request_status TO restorer;
	GRANT ALL ON ALL TABLES IN SCHEMA stripe_lifecycle TO restorer;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA stripe_lifecycle TO restorer}, 'of_a_role');
$other->disconnect;
restore('a role', 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/data.sql",
	"$connection user=restorer");
is_a_copy($other->node, 'of_a_role', 'a role');
$other->disconnect('of_a_role');
$other->sql('DROP DATABASE of_a_role');
$other->sql('DROP ROLE restorer');

# into a database that was paused before
$connection = new_database('paused_before');
$other->sql("CREATE EXTENSION stripe_lifecycle; SELECT stripe_lifecycle.pause_worker('before')", 'paused_before');
$other->disconnect;
restore('paused before', 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/data.sql", $connection);
my $actions = qr/^operator_actions\|.*\n/m;
is(checksums($other->node, 'paused_before') =~ s/$actions//r, $original =~ s/$actions//r, 'paused before: identical');
is($other->value(q{SELECT count(*), count(*) FILTER (WHERE reason = 'before') FROM stripe_lifecycle.operator_actions}, 'paused_before'),
	$server->value('SELECT count(*) + 1 FROM stripe_lifecycle.operator_actions') . '|1', 'but for what was done before, which is kept');
$other->sql("SELECT stripe_lifecycle.pause_worker('after')", 'paused_before');
is($other->value(q{SELECT id FROM stripe_lifecycle.operator_actions WHERE reason = 'after'}, 'paused_before'),
	$server->value('SELECT max(id) + 1 FROM stripe_lifecycle.operator_actions'), 'and numbers go on');

# past the guards, by which it would have been paused; once as it is, once with a payment of its own
take_dump('pg_dump', '--data-only', '--disable-triggers', '-f', "$folder/unguarded.sql", $source);
foreach my $database (qw(unguarded unguarded_too))
{
	$connection = new_database($database);
	$other->sql('CREATE EXTENSION stripe_lifecycle', $database);
	$other->disconnect;
	my (undef, $refused) = run_command([ 'psql', '-X', '-q', '-o', '/dev/null', '-f', "$folder/unguarded.sql", $connection ]);
	is(join(' ', $refused =~ /ERROR:  (.*)/g), 'duplicate key value violates unique constraint "worker_state_pkey"',
		"$database: restored, but for the row of worker_state");
	like($other->value(q{SELECT status || ': ' || hint FROM stripe_lifecycle.health() WHERE check_name = 'guards'}, $database),
		qr/^critical: Enable them: ALTER TABLE/, "$database: health() says that the guards are not what they were");
}
my $own = $other->error($other->create_payment_sql(idempotency_key => 'unguarded'), 'unguarded_too');
like($own->{text}, qr/WARNING:.*is paused.*restored from a dump/s, 'unguarded_too: paused by the first payment');

my $cluster = PostgreSQL::Test::Cluster->new('cluster');
$cluster->init(extra => [ '--encoding=UTF8', '--locale=C', '--no-sync' ]);
$cluster->append_conf('postgresql.conf', "log_statement = none\n");
$cluster->start;
take_dump('pg_dumpall', '-f', "$folder/all.sql", '-d', $source);
my ($said, $errors) = run_command(
	[ 'psql', '-X', '-q', '-o', '/dev/null', '-f', "$folder/all.sql", $cluster->connstr('postgres') ]);
is(join("\n", grep { !/role "\w+" already exists/ } $errors =~ /(ERROR:.*)/g), '',
	'pg_dumpall: restored, but for the role that was there');
is_a_copy($cluster, 'postgres', 'pg_dumpall');
$cluster->stop;

note(sprintf '%s: %.1f s', $_, $took{$_}) foreach sort keys %took;

# ---------- a copy sends nothing ----------

my @databases = qw(plain custom only_data inserts paused_before unguarded unguarded_too);
foreach (@databases)
{
	$other->sql(q{UPDATE stripe_lifecycle.api_requests SET next_attempt_at = now()
		WHERE status = 'queued' AND payment_id IN (SELECT payment_id FROM stripe_lifecycle.api_requests
			WHERE status = 'queued' AND operation = 'create' LIMIT 5)}, $_);
}
$other->disconnect;
my $log = $other->log_length;
my $calls = @{ $stripe->ledger->{requests} };
my $copy = $other->error($other->create_payment_sql(idempotency_key => 'in the copy'), 'plain');
like($copy->{text}, qr/WARNING:.*is paused.*this is a copy/s, 'the copy says so on enqueue');
$other->configure("stripe_lifecycle.databases = ''");
foreach (@databases)
{
	$other->sql('SELECT stripe_lifecycle.wake_worker()', $_);
	eventually(sub { $other->value('SELECT paused FROM stripe_lifecycle.worker_state', $_) },
		't', "$_: its worker pauses it");
	isnt($other->value("SELECT status FROM stripe_lifecycle.health() WHERE check_name = 'paused'", $_),
		'ok', "$_: health() says so");
}
like($other->log_text($log), qr/WARNING:  stripe_lifecycle has paused this database/, 'and so does the log');
is(scalar @{ $stripe->ledger->{requests} }, $calls, 'nothing was sent');

# ---------- and once it is in use, the door is shut ----------

my $hand = q{INSERT INTO stripe_lifecycle.payment_transitions VALUES (gen_random_uuid(), 1, NULL, 'created', now(),
	'create_payment', NULL, NULL, NULL, 'x', NULL, 1, 'usd', NULL, sha256('x'))};
is($other->error($hand, 'plain')->{sqlstate}, 'SL004', 'a payment was made here: nothing is restored any more');
is($other->error($hand, 'custom')->{sqlstate}, '', 'none was made there: it would be');
$other->sql('SELECT stripe_lifecycle.resume_worker()', 'custom');
is($other->error($hand, 'custom')->{sqlstate}, 'SL004', 'resume_worker() takes what was restored into use');
is($other->value(q{SELECT string_agg(problem, ' ' ORDER BY problem) FROM stripe_lifecycle.verify_audit()}, 'custom'),
	'altered no_payment', 'and what was restored by hand is found');

# the copy takes over: it sends, and goes on with numbers and trails
$other->sql('SELECT stripe_lifecycle.resume_worker()', 'plain');
$other->intent_known($copy->{output}, 'after resume_worker() it sends', 'plain');
my $last = $server->value('SELECT max(id) FROM stripe_lifecycle.api_requests');
is($other->value("SELECT id FROM stripe_lifecycle.api_requests WHERE payment_id = '$copy->{output}'", 'plain'),
	$last + 1, 'numbers go on');
my $body = JSON::PP->new->encode({ %{ JSON::PP->new->decode(
	'{"id": "evt_of_the_copy", "object": "event", "created": 1800000000, "type": "payment_intent.succeeded", "livemode": false}') },
	data => { object => { id => 'pi_12', object => 'payment_intent', status => 'succeeded', amount => 1012,
		currency => 'usd', metadata => { stripe_lifecycle_payment_id => $ids[11] } } } });
is($other->ingest($body, StripeLifecycle::sign($body), 'plain'), 'applied', 'webhooks are taken in');
is($other->value('SELECT count(*) FROM stripe_lifecycle.verify_audit()', 'plain'), 0, 'the trail goes on');

$other->stop;
$server->stop;
done_testing();
