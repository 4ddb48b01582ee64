
# lint(): a server as it should be has no findings. Each rule is broken in every way it knows, found, and
# mended, where the fix is a statement by that statement; then there are none again.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use SealedTrail;
use StripeLifecycle;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $node = PostgreSQL::Test::Cluster->new('lint');
my $hba = "local all all peer\nhost all all 0.0.0.0/0 scram-sha-256\n";

sub write_hba
{
	my ($content) = @_;

	open my $file, '>', $node->data_dir . '/pg_hba.conf' or die "could not write: $!";
	print $file $content;
	close $file or die "could not write: $!";
	return;
}

# One session for it all, since there is much to ask; a restart ends it.
my $session;

sub sql
{
	my ($sql) = @_;
	my ($output, $complaints);

	$session //= StripeLifecycle::Session->new($node, 'postgres');
	($output, $complaints) = $session->run($sql);
	die "failed: $sql\n$complaints" if $complaints =~ /^(ERROR|FATAL):/m;
	return $output;
}

sub stop
{
	$session->close if $session;
	undef $session;
	return $node->stop;
}

sub restart { stop(); return $node->start; }

$node->init(extra => [ '--no-sync', '--data-checksums', '--encoding=UTF8', '--locale=C' ]);
write_hba($hba);
write_secret("$dir/api_key", "rk_live_tap_key\n");
write_secret("$dir/webhook_secrets", 'whsec_' . 'x' x 32 . "\n");
write_secret("$dir/checkpoint_key", make_key());
$node->append_conf(
	'postgresql.conf', qq{
shared_preload_libraries = 'stripe_lifecycle'
log_statement = none
fsync = on
wal_level = replica
archive_mode = on
archive_command = 'true'
stripe_lifecycle.api_key_file = '$dir/api_key'
stripe_lifecycle.webhook_secret_file = '$dir/webhook_secrets'
stripe_lifecycle.reconcile_interval = 5min
stripe_lifecycle.checkpoint_key_file = '$dir/checkpoint_key'
});
$node->start;
sql('CREATE EXTENSION stripe_lifecycle');

# What lint() says, each finding as rule|severity|object.
sub findings { return sql('SELECT rule, severity, object FROM stripe_lifecycle.lint()'); }

# A test: breaks something, waits for the findings, mends it, waits for there to be none. 'Mend' may be
# code, SQL, or undef: then the fixes are run.
my (%found, %whole);

sub rule
{
	my ($expected, $break, $mend, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rule) = split /\|/, $expected;

	run($break);
	eventually(\&findings, $expected, "$name: found");
	$found{$rule} = 1;
	foreach my $row (split /\n/, sql('SELECT finding, fix FROM stripe_lifecycle.lint()'))
	{
		my ($finding, $fix) = split /\|/, $row;

		ok($finding ne '' && $finding !~ /\Q$dir\E|tap_key|whsec_x/ && $fix =~ /[.;)]$/, "$name: says what and what to do");
	}
	run($mend // [ split /\n/, sql('SELECT fix FROM stripe_lifecycle.lint()') ]);
	eventually(\&findings, '', "$name: mended");
	return;
}

sub run
{
	my ($what) = @_;

	return $what->() if ref $what eq 'CODE';
	sql($_) foreach ref $what ? @$what : $what;
	return;
}

# The same for a setting, by ALTER SYSTEM.
sub setting
{
	my ($expected, $name, $value, $restart) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $change = $restart ? sub { restart() } : sub { $node->reload };

	return rule(
		$expected,
		sub { sql("ALTER SYSTEM SET $name = '$value'"); $change->(); },
		sub { sql("ALTER SYSTEM RESET $name"); $change->(); },
		"$name = $value");
}

eventually(\&findings, '', 'a server as it should be: nothing is found');

#
# Settings: the log, durability, what webhooks need
#

setting("log_parameters|warning|log_parameter_max_length\nlog_statement|warning|log_statement", 'log_statement', 'all');
setting("log_duration|warning|$_\nlog_parameters|warning|log_parameter_max_length", $_, '0')
  foreach qw(log_min_duration_statement log_min_duration_sample);
setting("log_duration|warning|log_transaction_sample_rate\nlog_parameters|warning|log_parameter_max_length",
	'log_transaction_sample_rate', '0.01');
sql('ALTER SYSTEM SET log_parameter_max_length = 0');
$node->reload;
setting('log_statement|warning|log_statement', 'log_statement', 'all');
sql('ALTER SYSTEM RESET log_parameter_max_length');
$node->reload;
setting('log_parameters_on_error|warning|log_parameter_max_length_on_error', 'log_parameter_max_length_on_error', $_)
  foreach qw(64 -1);
setting('log_redaction|critical|stripe_lifecycle.log_redaction', 'stripe_lifecycle.log_redaction', 'off');
setting("debug_print|warning|$_", $_, 'on') foreach qw(debug_print_parse debug_print_rewritten debug_print_plan);
setting("durability|critical|$_", $_, 'off') foreach qw(fsync full_page_writes synchronous_commit);
setting("durability|critical|$_", $_, 'on') foreach qw(zero_damaged_pages ignore_checksum_failure);
setting('isolation|critical|default_transaction_isolation', 'default_transaction_isolation', $_)
  foreach ('repeatable read', 'serializable');
setting('webhook_tolerance|warning|stripe_lifecycle.webhook_tolerance', 'stripe_lifecycle.webhook_tolerance', '11min');
setting('reconciliation|warning|stripe_lifecycle.reconcile_interval', 'stripe_lifecycle.reconcile_interval', '0');
setting('checkpoints|warning|stripe_lifecycle.checkpoint_key_file', 'stripe_lifecycle.checkpoint_key_file', '');
setting('checkpoints|warning|stripe_lifecycle.checkpoint_interval', 'stripe_lifecycle.checkpoint_interval', '0');

# what is not found
foreach my $harmless (
	[ 'log_statement', 'ddl' ], [ 'log_parameter_max_length', '-1' ], [ 'synchronous_commit', 'local' ],
	[ 'stripe_lifecycle.webhook_tolerance', '10min' ], [ 'log_file_mode', '0644' ],
	[ 'log_min_error_statement', 'debug5' ])
{
	sql("ALTER SYSTEM SET $harmless->[0] = '$harmless->[1]'");
	$node->reload;
	eventually(sub { sql("SELECT reset_val <> boot_val OR setting = '0644' OR name ~ 'max_length' FROM pg_settings WHERE name = '$harmless->[0]'") },
		't', "$harmless->[0] = $harmless->[1]: is set");
	is(findings(), '', "$harmless->[0] = $harmless->[1]: nothing to be found");
	sql("ALTER SYSTEM RESET $harmless->[0]");
	$node->reload;
}

# of a role, of a database, of both; of another database it does not matter
sql('CREATE ROLE tap_role; CREATE DATABASE tap_other; ALTER DATABASE tap_other SET synchronous_commit = off');
eventually(\&findings, '', 'a setting of another database: nothing to be found');
rule('durability|critical|synchronous_commit of role tap_role',
	'ALTER ROLE tap_role SET synchronous_commit = FALSE', 'ALTER ROLE tap_role RESET ALL', 'of a role');
rule("durability|critical|synchronous_commit of role tap_role in database postgres",
	'ALTER ROLE tap_role IN DATABASE postgres SET synchronous_commit = 0', 'ALTER ROLE tap_role IN DATABASE postgres RESET ALL', 'of a role in a database');
rule("read_only|warning|default_transaction_read_only of role tap_role",
	'ALTER ROLE tap_role SET default_transaction_read_only = on', 'ALTER ROLE tap_role RESET ALL', 'read only');
rule('isolation|critical|default_transaction_isolation of role tap_role',
	"ALTER ROLE tap_role SET default_transaction_isolation = 'Repeatable Read'", 'ALTER ROLE tap_role RESET ALL', 'isolation of a role');
rule("log_duration|warning|log_min_duration_statement of role tap_role\nlog_parameters|warning|log_parameter_max_length",
	"ALTER ROLE tap_role SET log_min_duration_statement = '250ms'", 'ALTER ROLE tap_role RESET ALL', 'slow statements of a role');

# with a restart
setting('worker_processes|critical|max_worker_processes', 'max_worker_processes', '2', 'restart');
setting('backup|warning|archive_mode', 'archive_mode', 'off', 'restart');
rule('preloaded|critical|shared_preload_libraries',
	sub { $node->append_conf('postgresql.conf', "shared_preload_libraries = ''"); restart(); },
	sub { $node->append_conf('postgresql.conf', "shared_preload_libraries = 'stripe_lifecycle'"); restart(); },
	'not preloaded');
sql("ALTER SYSTEM SET logging_collector = on");
restart();
setting('log_files|warning|log_file_mode', 'log_file_mode', $_) foreach qw(0644 0604);
sql('ALTER SYSTEM RESET logging_collector');
restart();
rule('auto_explain|warning|auto_explain.log_min_duration',
	sub {
		$node->append_conf('postgresql.conf', "session_preload_libraries = 'auto_explain'\nauto_explain.log_min_duration = 0");
		$node->reload;
	},
	sub { $node->append_conf('postgresql.conf', 'auto_explain.log_min_duration = -1'); $node->reload; },
	'auto_explain');
rule('data_checksums|warning|data_checksums',
	sub { stop(); command_ok([ 'pg_checksums', '--disable', '--no-sync', '-D', $node->data_dir ], 'checksums off'); $node->start; },
	sub { stop(); command_ok([ 'pg_checksums', '--enable', '--no-sync', '-D', $node->data_dir ], 'checksums on'); $node->start; },
	'data checksums');
# a standby will do instead of an archive
sql("ALTER SYSTEM SET archive_mode = off; SELECT pg_create_physical_replication_slot('standby')");
restart();
eventually(\&findings, '', 'a slot for a standby, and no archive: nothing to be found');
sql("ALTER SYSTEM RESET archive_mode; SELECT pg_drop_replication_slot('standby')");
restart();

#
# Secrets, and where they go
#

rule('secrets|critical|API key',
	sub { chmod 0644, "$dir/api_key" }, sub { chmod 0600, "$dir/api_key"; $node->reload }, 'an open file');
rule('secrets|warning|API key',
	sub { write_secret("$dir/api_key", "rk_live_tap_key\n") }, sub { $node->reload }, 'a file that was not reloaded');
rule('secrets|critical|webhook secret',
	sub { rename "$dir/webhook_secrets", "$dir/gone" }, sub { rename "$dir/gone", "$dir/webhook_secrets"; $node->reload }, 'no file');
rule('secrets|critical|checkpoint key',
	sub { chmod 0640, "$dir/checkpoint_key" }, sub { chmod 0600, "$dir/checkpoint_key" }, 'an open file with the key for checkpoints');
rule('secrets|critical|checkpoint key',
	sub { write_secret("$dir/checkpoint_key", public_key(make_key())) }, sub { write_secret("$dir/checkpoint_key", make_key()) },
	'a public key for checkpoints');
rule("secrets|critical|API key\nsecrets|critical|checkpoint key\nsecrets|critical|webhook secret",
	sub { chmod 0777, $dir }, sub { chmod 0700, $dir }, 'an open directory');
rule('secrets|warning|webhook secret shop',
	sub { write_secret("$dir/webhook_secrets", "shop whsec_short\n"); $node->reload },
	sub { write_secret("$dir/webhook_secrets", 'whsec_' . 'x' x 32 . "\n"); $node->reload }, 'a short secret');
write_secret("$dir/api_key", "rk_test_tap_key\n");
$node->reload;
eventually(\&findings, '', 'a test key: nothing to be found');
setting('api_base|warning|stripe_lifecycle.api_base', 'stripe_lifecycle.api_base', 'http://127.0.0.1:9');
write_secret("$dir/api_key", "rk_live_tap_key\n");
$node->reload;
setting('api_base|critical|stripe_lifecycle.api_base', 'stripe_lifecycle.api_base', 'https://example.com');
rule('shared_key|notice|stripe_lifecycle.databases',
	'CREATE DATABASE tap_third', 'DROP DATABASE tap_third', 'a key for all databases');
sql('CREATE DATABASE tap_third');
$node->append_conf('postgresql.conf', "stripe_lifecycle.databases = 'postgres'");
$node->reload;
eventually(\&findings, '', 'a key for one of several: nothing to be found');

#
# Roles
#

sql(q{CREATE ROLE "tap; odd" LOGIN; SELECT stripe_lifecycle.grant_application('"tap; odd"'), stripe_lifecycle.grant_auditor('tap_role')});
eventually(\&findings, '', 'roles as they should be: nothing to be found');
rule('superuser|critical|role "tap; odd"',
	'ALTER ROLE "tap; odd" SUPERUSER', 'ALTER ROLE "tap; odd" NOSUPERUSER', 'a superuser as application');
my $owner = sql('SELECT current_user');
rule('membership|critical|role "tap; odd"', qq{GRANT $_ TO "tap; odd"}, undef, "a member of $_")
  foreach ($owner, 'stripe_lifecycle_worker', 'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program');
rule("membership|critical|role \"tap; odd\"\nmembership|critical|role tap_role",
	'GRANT pg_read_server_files TO tap_role; GRANT tap_role TO "tap; odd"',
	[ 'REVOKE pg_read_server_files FROM tap_role', 'REVOKE tap_role FROM "tap; odd"' ], 'a member of a member');
rule('reader|warning|role "tap; odd"', qq{GRANT $_ TO "tap; odd"}, qq{REVOKE $_ FROM "tap; odd"}, "a member of $_")
  foreach qw(pg_read_all_data pg_write_all_data);
rule('statements|notice|role "tap; odd"', qq{GRANT pg_monitor TO "tap; odd"}, qq{REVOKE pg_monitor FROM "tap; odd"}, 'a reader of statements');
setting('owner_claim|warning|role "tap; odd"', 'stripe_lifecycle.owner_claim', 'sub');
sql('ALTER ROLE "tap; odd" NOLOGIN');
$node->append_conf('postgresql.conf', "stripe_lifecycle.owner_claim = 'sub'");
$node->reload;
eventually(sub { sql(q{SELECT current_setting('stripe_lifecycle.owner_claim')}) }, 'sub', 'a claim');
eventually(\&findings, '', 'a role without a login, and a claim: nothing to be found');

#
# Objects
#

my $payments = 'stripe_lifecycle.payments';
foreach my $case (
	[ 'warning|table stripe_lifecycle.payments', "GRANT SELECT ON $payments TO tap_role" ],
	[ 'warning|table stripe_lifecycle.payments', "GRANT UPDATE ON $payments TO tap_role" ],
	[ 'warning|table stripe_lifecycle.payments.client_secret', "GRANT SELECT (client_secret) ON $payments TO tap_role" ],
	[ 'critical|table stripe_lifecycle.payments', "GRANT TRIGGER ON $payments TO tap_role" ],
	[ 'critical|table stripe_lifecycle.payments.state', "GRANT SELECT (state) ON $payments TO PUBLIC" ],
	[ 'critical|schema stripe_lifecycle', 'GRANT CREATE ON SCHEMA stripe_lifecycle TO tap_role' ],
	[ 'critical|schema stripe_lifecycle', 'GRANT USAGE ON SCHEMA stripe_lifecycle TO PUBLIC' ],
	[ 'critical|function stripe_lifecycle.health()', 'GRANT EXECUTE ON FUNCTION stripe_lifecycle.health() TO PUBLIC' ],
	[ 'critical|function stripe_lifecycle.pause_worker(text)', 'GRANT EXECUTE ON FUNCTION stripe_lifecycle.pause_worker(text) TO "tap; odd" WITH GRANT OPTION' ],
	[ 'warning|function stripe_lifecycle.wake_worker()', 'GRANT EXECUTE ON FUNCTION stripe_lifecycle.wake_worker() TO tap_role' ],
	[ 'warning|function stripe_lifecycle.pause_worker(text)', 'GRANT EXECUTE ON FUNCTION stripe_lifecycle.pause_worker(text) TO stripe_lifecycle_worker' ],
	[ 'warning|sequence stripe_lifecycle.api_requests_id_seq', 'GRANT USAGE ON SEQUENCE stripe_lifecycle.api_requests_id_seq TO tap_role' ],
	[ 'critical|type stripe_lifecycle.payment_state', 'GRANT USAGE ON TYPE stripe_lifecycle.payment_state TO PUBLIC' ])
{
	my ($expected, $grant) = @$case;

	rule("privilege|$expected", $grant, undef, $grant);
}

rule('guards|critical|schema stripe_lifecycle',
	"ALTER TABLE $payments DISABLE TRIGGER stripe_lifecycle_guard",
	"ALTER TABLE $payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard", 'a guard that is off');

sql(q{
	CREATE SCHEMA tap;
	CREATE FUNCTION tap.theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE FUNCTION tap.pinned() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NEW; END';
	CREATE FUNCTION tap.ours() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	ALTER FUNCTION tap.theirs() OWNER TO tap_role; ALTER FUNCTION tap.pinned() OWNER TO tap_role});
sql("CREATE TRIGGER $_ AFTER UPDATE ON $payments FOR EACH ROW EXECUTE FUNCTION tap.$_()") foreach qw(pinned ours);
eventually(\&findings, '', 'triggers as they should be: nothing to be found');
rule('trigger|critical|trigger theirs on stripe_lifecycle.payments',
	"CREATE TRIGGER theirs AFTER UPDATE ON $payments FOR EACH ROW EXECUTE FUNCTION tap.theirs()",
	[ 'ALTER FUNCTION tap.theirs() SECURITY DEFINER', 'ALTER FUNCTION tap.theirs() SET search_path = pg_catalog, pg_temp' ],
	'somebody\'s function with the owner\'s rights');
rule('trigger|warning|trigger pinned on stripe_lifecycle.payments',
	'ALTER FUNCTION tap.pinned() RESET search_path', 'ALTER FUNCTION tap.pinned() SET search_path = pg_catalog', 'a function with an open path');
rule('trigger|warning|trigger early on stripe_lifecycle.webhook_events',
	'CREATE TRIGGER early BEFORE INSERT ON stripe_lifecycle.webhook_events FOR EACH ROW EXECUTE FUNCTION tap.ours()',
	'DROP TRIGGER early ON stripe_lifecycle.webhook_events', 'a BEFORE trigger');
rule('rule|warning|rule nothing on stripe_lifecycle.payments',
	"CREATE RULE nothing AS ON UPDATE TO $payments DO INSTEAD NOTHING", undef, 'a rule');
rule('row_security|warning|table stripe_lifecycle.api_requests',
	"ALTER TABLE stripe_lifecycle.api_requests $_ ROW LEVEL SECURITY", undef, "$_ row security")
  foreach qw(ENABLE FORCE);
rule('publication|warning|publication "tap; all"', 'CREATE PUBLICATION "tap; all" FOR ALL TABLES', 'DROP PUBLICATION "tap; all"', 'a publication of all tables');
rule('publication|warning|publication part', "CREATE PUBLICATION part FOR TABLE $payments (id, client_secret)", 'DROP PUBLICATION part', 'a publication of a secret');
sql("CREATE PUBLICATION harmless FOR TABLE $payments (id, state, amount), stripe_lifecycle.payment_transitions");
eventually(\&findings, '', 'a publication of what an auditor may read: nothing to be found');
rule("public_schema|warning|schema $_", "GRANT CREATE ON SCHEMA $_ TO PUBLIC", undef, "schema $_ is open to all")
  foreach qw(public tap);

#
# Who may connect. The file is read as it is; the server goes on with what it has loaded.
#

foreach my $case (
	# line, expected, name
	[ 'local all all trust', 'trust|warning|pg_hba.conf, line 3', 'trust on the machine' ],
	[ 'host all all 127.0.0.1/32 trust', 'trust|warning|pg_hba.conf, line 3', 'trust on a loopback address' ],
	[ 'host all all ::1/128 trust', 'trust|warning|pg_hba.conf, line 3', 'trust on the other one' ],
	[ 'host all all localhost trust', 'trust|warning|pg_hba.conf, line 3', 'trust on localhost' ],
	[ 'host postgres tap 192.0.2.0/24 trust', 'trust|critical|pg_hba.conf, line 3', 'trust in the network' ],
	[ 'host replication all 0.0.0.0/0 trust', 'trust|critical|pg_hba.conf, line 3', 'trust for replication' ],
	[ 'host sameuser all all trust', 'trust|critical|pg_hba.conf, line 3', 'trust from everywhere' ],
	[ 'host all all 0.0.0.0/0 password', 'password|warning|pg_hba.conf, line 3', 'passwords in the clear' ],
	[ 'hostnossl all all ::0/0 password', 'password|warning|pg_hba.conf, line 3', 'passwords without TLS' ],
	[ 'hostssl all all 0.0.0.0/0 password', 'hba_error|warning|pg_hba.conf, line 3', 'TLS alone, where there is none' ],
	[ 'host all all', 'hba_error|warning|pg_hba.conf, line 3', 'an error' ])
{
	my ($line, $expected, $name) = @$case;

	rule($expected, sub { write_hba("$hba$line\n") }, sub { write_hba($hba) }, $name);
}
foreach my $line (
	'host tap_other all 0.0.0.0/0 trust',
	'host all all 127.0.0.1/32 password', 'host all all 0.0.0.0/0 reject', '# host all all all trust')
{
	write_hba("$hba$line\n");
	is(findings(), '', "$line: nothing to be found");
}
write_hba($hba);
setting('ssl|critical|ssl', 'listen_addresses', '127.0.0.1, 0.0.0.0', 'restart');
write_hba("local all all peer\nhost all all 0.0.0.0/0 reject\n");
sql(q{ALTER SYSTEM SET listen_addresses = '127.0.0.1'});
restart();
eventually(\&findings, '', 'an open port on loopback: nothing to be found');

#
# All rules were tried, and are documented
#

my %rules = map { $_ => 1 } slurp_file("$FindBin::RealBin/../../sql/stripe_lifecycle--1.0.sql") =~
  /^CREATE FUNCTION \@extschema\@\.lint_\w+\(.*?^COMMENT/msg
  ? map { /(?:SELECT|^\t\()\s*'(\w+)',\s*(?:'(?:critical|warning|notice)'|CASE|t\.severity)/mg }
  slurp_file("$FindBin::RealBin/../../sql/stripe_lifecycle--1.0.sql") =~ /^CREATE FUNCTION \@extschema\@\.lint_\w+\(.*?^COMMENT/msg
  : ();
is(join(' ', sort keys %found), join(' ', sort keys %rules), 'every rule was broken and mended');
my ($table) = slurp_file("$FindBin::RealBin/../../docs/operations.md") =~ /^### lint\(\)\n.*?\n\| --- [^\n]*\n(.*?)\n\n/ms;
is(join(' ', sort map { /^\| `(\w+)`/ } split /\n/, $table), join(' ', sort keys %rules), 'every rule is documented');

# An auditor and an operator may ask; an application may not.
sql(q{CREATE ROLE tap_operator; SELECT stripe_lifecycle.grant_operator('tap_operator')});
is(sql("SET ROLE $_; SELECT count(*) FROM stripe_lifecycle.lint(); RESET ROLE"), 0, "$_ may ask")
  foreach qw(tap_role tap_operator);
like(($node->psql('postgres', 'SET ROLE "tap; odd"; SELECT stripe_lifecycle.lint()'))[2], qr/permission denied/, 'an application may not');

stop();
done_testing();
