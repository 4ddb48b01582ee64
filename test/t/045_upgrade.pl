
# ALTER EXTENSION UPDATE: an updated database can't be told from a new one; a
# library and objects that don't fit do nothing and say so; nobody waits.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use NextVersion;
use StripeLifecycle;

my $next = NextVersion->new;
my ($FROM, $TO) = ($next->{from}, $next->{to});
my $EITHER = "$FROM $TO";
my $UPDATE = "ALTER EXTENSION stripe_lifecycle UPDATE TO '$TO'";
my $MISMATCH =
  qr/library of stripe_lifecycle is of version \S+, the extension in this database of version \S+/;

my $stripe = StripeLifecycle::StandIn->new(seed => 45);
my $server = StripeLifecycle->new(
	'main', $stripe,
	install_path => $next->{install_path},
	conf => q{
stripe_lifecycle.worker_linger = 0
stripe_lifecycle.retry_base_delay = 50
stripe_lifecycle.retry_max_delay = 200
});

# A library is loaded when the server starts. What is done meanwhile finds no
# server, what is queued before is not sent before: no database is served then.
sub change_library
{
	my ($accepts) = @_;

	$server->stop;
	$next->use_library($accepts);
	$server->start;
	return;
}

sub serve
{
	my ($databases) = @_;

	$server->configure("stripe_lifecycle.databases = '$databases'");
	return;
}

sub catalog_of
{
	my ($database) = @_;

	return [ split /\n/, $server->node->safe_psql($database, slurp_file('test/lib/catalog.sql')) ];
}

# Lines that only one of two has.
sub differences
{
	my ($one, $other) = @_;
	my (%one, %other);

	$one{$_}++ foreach @$one;
	$other{$_}++ foreach @$other;
	return ((grep { !$other{$_} } @$one), (grep { !$one{$_} } @$other));
}

sub new_database
{
	my ($name, $version) = @_;

	$server->sql("CREATE DATABASE $name");
	$server->sql("CREATE EXTENSION stripe_lifecycle VERSION '$version'", $name);
	return;
}

# All that is stored, as one checksum of each table's rows in columns of before.
sub stored
{
	my ($database) = @_;

	return $server->sql(
		q{
		SELECT format('SELECT %L, md5(coalesce(string_agg(r::text, chr(10) ORDER BY r::text), %L)), count(*) FROM (SELECT %s FROM %s) r',
				c.relname, '', string_agg(a.attname, ', ' ORDER BY a.attnum), c.oid::regclass)
		  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
		 WHERE c.relnamespace = 'stripe_lifecycle'::regnamespace AND c.relkind = 'r'
		   AND a.attname <> 'channel' AND c.relname NOT IN ('worker_state', 'next_notes')
		 GROUP BY c.oid, c.relname ORDER BY c.relname \gexec
		}, $database);
}

my ($versions, $log);

#
# A database with a history
#

my @succeeded = map { $server->create_payment } 1 .. 5;
my @failed = map { $server->create_payment } 1 .. 5;
my @open = map { $server->create_payment(decline_policy => 'retry') } 1 .. 5;
$server->intent_known($_) foreach @succeeded, @failed, @open;
$stripe->pay($server->payment($_, 'client_secret'), 'pm_card_visa') foreach @succeeded;
$stripe->pay($server->payment($_, 'client_secret'), 'pm_card_visa_chargeDeclined')
  foreach @failed, @open;
eventually(
	sub
	{
		$server->deliver_webhooks($stripe);
		$server->value("SELECT string_agg(n::text, ' ' ORDER BY state) FROM (
			SELECT state, count(*) AS n FROM stripe_lifecycle.payments GROUP BY state) s");
	},
	'5 5 5', 'payments in several states');
eventually(
	sub { $server->value("SELECT count(*) FROM stripe_lifecycle.api_requests WHERE finished_at IS NULL") },
	'0', 'and nothing under way');
$server->deliver_webhooks($stripe);
my $before = stored('postgres');

is($server->value('SELECT * FROM stripe_lifecycle.versions()'),
	"$FROM|$FROM|", 'library and objects are of one version');

#
# The new scripts are installed, and the old library still runs
#

my $catalog = catalog_of('postgres');
cmp_ok(scalar @$catalog, '>', 500, 'the catalogs have much to compare');
fails_with($server->error($UPDATE), 'SL030', qr/still runs the library of stripe_lifecycle $FROM, not of $TO.*[Rr]estart/s,
	'an update under the old library is refused, and the hint says what to do');
is_deeply([ differences($catalog, catalog_of('postgres')) ], [], 'it has changed nothing');
is(stored('postgres'), $before, 'nor any row');
my $payment = $server->create_payment;
$server->intent_known($payment, 'and all goes on');

#
# A library that does not fit: it does nothing, says so, and lives
#

sub nothing_is_done
{
	my ($who) = @_;
	my $started = $server->value('SELECT pg_postmaster_start_time()');
	my $requests = $stripe->count('requests');
	my $rows = $server->node->safe_psql('postgres',
		q{SELECT (SELECT count(*) FROM stripe_lifecycle.payments), (SELECT count(*) FROM stripe_lifecycle.webhook_events),
			(SELECT string_agg(format('%s %s %s', status, attempts, next_attempt_at), ',' ORDER BY id) FROM stripe_lifecycle.api_requests)});

	# the worker
	serve('postgres');
	eventually(sub { $server->log_text($log) },
		qr/WARNING:.* stripe_lifecycle sends nothing from database "postgres": the server's $MISMATCH/,
		"$who: the worker says that it sends nothing");
	eventually(sub { $server->workers }, '0', "$who: and leaves");
	is($server->value("SELECT check_name || ': ' || status FROM stripe_lifecycle.health()"),
		'library: critical', "$who: health() knows one thing");
	like($server->health('library'), $MISMATCH, "$who: which it is");
	like($server->value('SELECT problem FROM stripe_lifecycle.versions()'),
		$MISMATCH, "$who: as versions() does");

	# every function that is C, called with all arguments NULL
	my @calls = split /\n/, $server->sql(
		q{
		SELECT format('SELECT * FROM %s(%s)', p.oid::regproc,
				(SELECT string_agg('NULL::' || format_type(t, NULL), ', ' ORDER BY n) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (t, n)))
		  FROM pg_proc p
		 WHERE p.pronamespace = 'stripe_lifecycle'::regnamespace AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c')
		   AND p.prorettype <> 'trigger'::regtype AND NOT p.proisstrict AND p.proname NOT IN ('versions', 'verify_webhook_signature', 'pre_request', 'next_answer')});
	cmp_ok(scalar @calls, '>=', 15, 'functions to be called');
	my @answered;
	foreach my $call (@calls)
	{
		my $error = $server->error($call);

		# to Stripe it is an error like any other that will pass: it delivers again
		next if $call =~ /\.webhook\(/ && $error->{sqlstate} eq 'PT500';
		push @answered, "$call: $error->{sqlstate}"
		  unless $error->{sqlstate} eq 'SL030' && $error->{text} =~ $MISMATCH && $error->{text} =~ /HINT:.*UPDATE.*restart/;
	}
	is_deeply(\@answered, [], "$who: every function refuses");

	# a webhook, good in itself, which the log must not quote
	my $body = '{"id": "evt_secretive", "object": "event"}';
	my $length = $server->log_length;
	fails_with($server->error($server->ingest_sql($body, sign($body))), 'SL030', $MISMATCH, "$who: no webhook is taken in");
	unlike($server->log_text($length), qr/evt_secretive|7365637265746976/, "$who: nor quoted in the log");

	# every guarded table, for superusers as for anybody
	my @tables = split /\n/, $server->sql(
		q{SELECT DISTINCT t.tgrelid::regclass::text FROM pg_trigger t WHERE t.tgfoid = 'stripe_lifecycle.guard()'::regprocedure ORDER BY 1});
	cmp_ok(scalar @tables, '>=', 6, 'tables to be written');
	my @written;
	foreach my $table (@tables)
	{
		my @statements = ("TRUNCATE $table CASCADE");

		push @statements, "DELETE FROM $table", "UPDATE $table SET (" . column($table) . ") = ROW(" . column($table) . ")"
		  if $server->value("SELECT EXISTS (SELECT FROM $table)") eq 't';
		foreach my $statement (@statements)
		{
			my $error = $server->error($statement);

			push @written, "$statement: $error->{sqlstate}" unless $error->{sqlstate} eq 'SL030';
		}
	}
	is_deeply(\@written, [], "$who: no table is written");
	fails_with(
		$server->error("INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency)
			VALUES (gen_random_uuid(), 'by hand', 1, 'eur')"),
		'SL030', $MISMATCH, "$who: not by hand either");

	# what is there can be read
	is($server->node->safe_psql('postgres',
		q{SELECT (SELECT count(*) FROM stripe_lifecycle.payments), (SELECT count(*) FROM stripe_lifecycle.webhook_events),
			(SELECT string_agg(format('%s %s %s', status, attempts, next_attempt_at), ',' ORDER BY id) FROM stripe_lifecycle.api_requests)}),
		$rows, "$who: everything is as it was");
	is($stripe->count('requests'), $requests, "$who: nothing was sent");
	is($server->value('SELECT pg_postmaster_start_time()'), $started, "$who: the server lives");
	unlike($server->log_text($log), qr/PANIC|terminated by signal|exited with exit code [^01]/, "$who: and no process died");
	my $warnings = () = $server->log_text($log) =~ /sends nothing from database "postgres"/g;
	is($warnings, 1, "$who: one warning is enough");
	return;
}

# Any column that may be set.
sub column
{
	my ($table) = @_;

	return $server->value("SELECT attname FROM pg_attribute WHERE attrelid = '$table'::regclass
		AND attnum > 0 AND attidentity = '' AND NOT attisdropped ORDER BY attnum LIMIT 1");
}

# A queue that waits: nobody serves the database while it is filled.
sub queue_payments
{
	my ($n) = @_;
	my @ids;

	serve('nobody');
	eventually(sub { $server->workers }, '0', 'no worker');
	@ids = map { $server->create_payment } 1 .. $n;
	return @ids;
}

sub all_sent_once
{
	my ($who, @ids) = @_;

	$server->intent_known($_, "$who: the queue is sent") foreach @ids;
	is(scalar(grep { scalar($stripe->intents_of($_)) != 1 } @ids), 0, "$who: each payment once");
	return;
}

my @waiting = queue_payments(3);
$log = $server->log_length;
change_library($TO);
nothing_is_done('a newer library');

#
# The update
#

is($server->error($UPDATE)->{text}, '', 'under the new library the update succeeds');
all_sent_once('after the update, by itself', @waiting);
is($server->value('SELECT * FROM stripe_lifecycle.versions()'), "$TO|$TO|", 'library and objects are of the next version');
like($server->health('library'), qr/^ok/, 'which is fine');
is($server->value('SELECT stripe_lifecycle.next_answer()'), '42', 'what is new works');
is($server->value('SELECT DISTINCT channel FROM stripe_lifecycle.payments'), 'web', 'old rows have the new column');
$server->audit_is_sound('the audit trail is sound after the update');
my $later = $server->create_payment;
$server->intent_known($later, 'payments are created as before');
$stripe->pay($server->payment($later, 'client_secret'), 'pm_card_visa');
eventually(sub { $server->deliver_webhooks($stripe); $server->state($later) }, 'succeeded', 'and paid');

new_database('fresh', $TO);
my $fresh = catalog_of('fresh');
is_deeply([ differences($fresh, catalog_of('postgres')) ], [],
	'the updated database can not be told from a new one');

#
# Back to the old library: the objects are too new for it
#

@waiting = queue_payments(3);
$log = $server->log_length;
change_library($FROM);
nothing_is_done('an older library');
fails_with($server->error('SELECT stripe_lifecycle.next_answer()'),
	'42883', qr/could not find function "sl_next_answer"/, 'and it has no function of the next version');
fails_with($server->error("CREATE EXTENSION stripe_lifecycle VERSION '$TO'", 'template1'),
	'42883', qr/could not find function "sl_next_answer"/, 'nor can it create what it does not have');

$log = $server->log_length;
change_library($EITHER);
all_sent_once('with the right library again', @waiting);

#
# A library that works with the objects of before: nothing is interrupted
#

serve('');
new_database('busy', $FROM);
is($server->value('SELECT * FROM stripe_lifecycle.versions()', 'busy'), "$TO|$FROM|", 'a library may work with older objects');

my @busy = map { $server->create_payment(database => 'busy') } 1 .. 3;
$server->intent_known($_, 'which it does', 'busy') foreach @busy;

# requests under way, some of them late, and webhooks coming in all the time
$stripe->fault(kind => 'delay', delay_ms => 1500, count => 10);
my $requests = $stripe->count('requests');
push @busy, map { $server->create_payment(database => 'busy') } 1 .. 10;
eventually(sub { $stripe->count('requests') - $requests }, qr/^1\d$/, 'ten requests are under way');
my $noise = StripeLifecycle::spawn(
	sub
	{
		my $session = StripeLifecycle::Session->new($server->node, 'busy');
		my $until = time + 4;
		my $n = 0;

		while (time < $until)
		{
			my ($output, $complaints) =
			  $session->run($server->create_payment_sql(idempotency_key => 'noise-' . $n++));

			die $complaints if $complaints =~ /ERROR|FATAL/;
		}
		$session->close;
	});
eventually(sub { $server->value("SELECT count(*) FROM stripe_lifecycle.payments WHERE idempotency_key ~ 'noise'", 'busy') },
	qr/^[1-9]/, 'payments are being created');
my $start = time;
is($server->error($UPDATE, 'busy')->{text}, '', 'an update in the midst of it');
my $took = time - $start;
cmp_ok($took, '<', 1, 'takes less than a second');
note(sprintf 'ALTER EXTENSION UPDATE: %.0f ms', 1000 * $took);
is(StripeLifecycle::finish($noise), 0, 'nobody was refused meanwhile');
eventually(
	sub { $server->value("SELECT count(*) FROM stripe_lifecycle.api_requests WHERE status <> 'succeeded'", 'busy') },
	'0', 'everything is sent');
is($server->value("SELECT count(*) - count(DISTINCT payment_intent_id) FROM stripe_lifecycle.payments", 'busy'),
	'0', 'each payment has a PaymentIntent of its own');
is(scalar(grep { scalar($stripe->intents_of($_)) != 1 } @busy), 0, 'and Stripe has one of each');
is_deeply([ differences($fresh, catalog_of('busy')) ], [], 'this one can not be told from a new one either');

#
# From every version there ever was
#

my @versions = split /\n/, $server->sql(
	"SELECT source FROM pg_extension_update_paths('stripe_lifecycle')
	  WHERE target = '$TO' AND path IS NOT NULL
	    AND source IN (SELECT version FROM pg_available_extension_versions WHERE name = 'stripe_lifecycle')");
ok((grep { $_ eq $FROM } @versions), 'the version at hand leads to the next one');
foreach my $version (@versions)
{
	(my $database = "from_$version") =~ s/\./_/g;
	new_database($database, $version);
	$server->sql($UPDATE, $database);
	is_deeply([ differences($fresh, catalog_of($database)) ], [],
		"from $version: can not be told from a new one");
}

#
# The comparison sees what is forgotten
#

$server->sql('CREATE DATABASE forgetful');
foreach my $change (@NextVersion::changes)
{
	$next->write_scripts($change);
	my ($status, $output, $complaints) = $server->node->psql(
		'forgetful', "BEGIN;
			CREATE EXTENSION stripe_lifecycle VERSION '$FROM';
			$UPDATE;
			" . slurp_file('test/lib/catalog.sql') . ';
			ROLLBACK', on_error_stop => 1);

	# or another statement has missed it
	if ($status != 0)
	{
		like($complaints, qr/ERROR/, "forgotten: $change->{object}, and the script fails");
		next;
	}
	my @differs = differences($fresh, [ split /\n/, $output ]);
	ok((grep { /$change->{object}/s } @differs), "forgotten: $change->{object}, and found")
	  or diag(join "\n", @differs);
}

$server->stop;
done_testing();
