# Card numbers, keys and secrets do not reach the server's log, whatever is
# logged, in whatever part of a message and in whatever format; and all of them
# do with the redaction off, so that the first says something.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StripeLifecycle;

# One of each kind. The hash has what must not be found, so that no secret is
# written here in one piece.
my %secret = (
	'secret key' => [ 'sk_live_', '51HtapAbCdEfGhIjKl' ],
	'test key' => [ 'sk_test_', 'TapTestKey0123' ],
	'restricted key' => [ 'rk_live_', '51RtapMnOpQrStUv' ],
	'signing secret' => [ 'whsec_', 'TapSigning42+/x=' ],
	'client secret' => [ 'pi_3TapIntent_secret_', 'ClientSecret77Tap' ],
	'setup secret' => [ 'seti_1TapIntent_secret_', 'SetupSecret88Tap' ],
	'card' => [ '', '4242424242424242' ],
	'card in groups' => [ '', '5555 5555 5555 4444' ],
	'card with dashes' => [ '', '3782-822463-10005' ]);
my @kinds = sort keys %secret;

sub text_of { return join '', @{ $secret{ $_[0] } }; }
my $all = join ' / ', map { text_of($_) } @kinds;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(extra => [ '--encoding=UTF8', '--locale=C', '--no-sync' ]);
$node->append_conf(
	'postgresql.conf', q{
shared_preload_libraries = 'auto_explain, stripe_lifecycle'
logging_collector = on
log_destination = 'stderr,csvlog,jsonlog'
log_directory = 'log'
log_filename = 'server.log'
log_rotation_age = 0
log_rotation_size = 0
log_line_prefix = '%m [%p] %a '
restart_after_crash = on
log_connections = on
log_disconnections = on
log_statement = all
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
log_error_verbosity = verbose
auto_explain.log_min_duration = 0
auto_explain.log_verbose = on
auto_explain.log_nested_statements = on
});
$node->start;
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION stripe_lifecycle;
CREATE TABLE t (n int CHECK (n > 0), a text UNIQUE, j json, b bytea);
CREATE FUNCTION fail_in_sql(sql text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE sql; END $$;
});

my %log = map { $_ => $node->data_dir . "/log/server.$_" } qw(log csv json);
my %seen = map { $_ => 0 } keys %log;

# One session for all but what has to begin or end one.
my $session = StripeLifecycle::Session->new($node, 'postgres');

# What was added to the logs since the last call, up to a line of our own that
# is in each of them.
my $calls = 0;

sub new_log
{
	my %text;

	$session->run(sprintf "DO \$\$ BEGIN RAISE LOG '%%', 'end of part ' || %d || '.'; END \$\$", ++$calls);
	foreach my $format (sort keys %log)
	{
		my $give_up = time + $DEADLINE;

		until (($text{$format} = slurp_file($log{$format}, $seen{$format})) =~ /end of part $calls\./)
		{
			die "$format does not get its line" if time > $give_up;
			select undef, undef, undef, 0.01;
		}
		$seen{$format} += length $text{$format};
	}
	return \%text;
}

# How jsonlog and csvlog write it, and bytea.
sub forms_of
{
	my ($text) = @_;

	return ($text, unpack 'H*', $text);
}

# Whatever comes back from it, errors included.
sub psql { return join "\n", $session->run(@_); }

# The protocol's own parameters, as a driver sends them.
sub pgbench
{
	my ($mode, $sql, $value) = @_;
	my $script = PostgreSQL::Test::Utils::tempdir . '/script.sql';

	open my $file, '>', $script or die "$script: $!";
	print $file $sql;
	close $file;
	run_log(
		[
			'pgbench', '-h', $node->host, '-p', $node->port, '-n', '-t', '1',
			'-M', $mode, '-D', "value=$value", '-f', $script, 'postgres'
		]);
	return;
}

# COPY from a file, so that the data is in no statement.
sub copy
{
	my ($column, $data) = @_;
	my $path = PostgreSQL::Test::Utils::tempdir . '/data';

	open my $file, '>', $path or die "$path: $!";
	print $file "$data\n";
	close $file;
	return psql("COPY t ($column) FROM '$path'");
}

# SQL literals
my $q = quote($all);
my $hex = "'\\x" . unpack('H*', $all) . "'";
(my $json = $all) =~ s/\//\\\//g;

# Every way into the log. What is given is what is handed in; parts of it come
# back in messages.
my %way = (
	'statement' => sub { psql("SELECT $q, 'here'"); },
	'statement that fails' => sub { psql("SELECT $q, 1 / 0"); },
	'syntax error' => sub { psql("SELEKT $q"); },
	'message' => sub { psql("DO \$\$ BEGIN RAISE EXCEPTION USING message = $q; END \$\$"); },
	'detail and hint' => sub {
		psql("DO \$\$ BEGIN RAISE EXCEPTION USING message = 'here', detail = $q, hint = $q; END \$\$");
	},
	'notice and log' => sub {
		psql("DO \$\$ BEGIN RAISE LOG '%', $q; RAISE WARNING USING message = $q, hint = $q; END \$\$");
	},
	'context' => sub {
		psql("SELECT fail_in_sql(\$\$ SELECT fail_in_sql(\$in\$ SELECT 1 / 0, $q \$in\$) \$\$)");
	},
	'internal query' => sub { psql("SELECT fail_in_sql(\$\$ SELECT $q WHERE nonsense \$\$)"); },
	'cast' => sub { psql("SELECT $q\::int"); },
	'JSON' => sub { psql(qq{SELECT E'{"a": "$json", x}'::json}); },
	'COPY' => sub { copy('n', $all); },
	'unique' => sub { psql("INSERT INTO t (a) VALUES ($q), ($q)"); },
	'cancelled' => sub {
		psql("SET statement_timeout = 50;\nSELECT pg_sleep(60), $q;\nRESET statement_timeout");
	},
	'prepared' => sub { psql("PREPARE p AS SELECT \$1::text; EXECUTE p($q); DEALLOCATE p"); },
	'cursor' => sub { psql("BEGIN; DECLARE c CURSOR FOR SELECT $q; FETCH c; COMMIT"); },
	'plan' => sub { psql("SELECT * FROM t WHERE a = $q AND j::text <> $q"); },
	'ALTER SYSTEM' => sub { psql("ALTER SYSTEM SET no.such_setting = $q"); },
	'bytea' => sub { psql("SELECT $hex\::bytea"); },
	'bytea that fails' => sub { psql("SELECT fail_in_sql(\$\$ SELECT 1 / 0, $hex\::bytea \$\$)"); },
	'a long message' => sub {
		psql("DO \$\$ BEGIN RAISE EXCEPTION '%', repeat('x ', 500000) || $q || repeat(' x', 500000); END \$\$");
	},
	'extended' => sub { pgbench('extended', "SELECT :value::text;\n", $all); },
	'extended that fails' => sub { pgbench('extended', "SELECT :value::int;\n", $all); },
	'extended that fails later' => sub {
		pgbench('prepared', "SELECT 1 / (length(:value::text) * 0);\n", $all);
	},
	'extended with bytea' => sub {
		pgbench('prepared', "SELECT :value::bytea;\n", '\\x' . unpack('H*', $all));
	});

# Ways that cut what they quote, so that each has to do with one.
my %way_of_one = (
	'failing row' => sub { psql('INSERT INTO t VALUES (-1, ' . quote($_[0]) . ')'); },
	'failing row, cut' => sub {
		psql('INSERT INTO t VALUES (-1, ' . quote('x' x 52 . ' ' . $_[0]) . ')');
	},
	'parameter, cut' => sub {
		pgbench('extended', "SET log_parameter_max_length_on_error = 14;\nSELECT :value::int;\n", $_[0]);
	},
	'JSON, cut' => sub {
		copy('j', '{"a": "' . 'y' x 200 . qq( $_[0]", "b": ") . 'x' x 8 . '", x}');
	},
	'application_name' => sub {
		psql('SET application_name = ' . quote($_[0]) . ";\nSELECT 'here';\nRESET application_name");
	});

sub go_all_ways
{
	my ($check) = @_;

	foreach my $way (sort keys %way)
	{
		$way{$way}->();
		$check->($way, $all, new_log());
	}
	foreach my $way (sort keys %way_of_one)
	{
		foreach my $kind (@kinds)
		{
			$way_of_one{$way}->(text_of($kind));
			$check->("$way, $kind", text_of($kind), new_log());
		}
	}
	return;
}

# What of the secrets is in a text: as it is, or as a part that is too long to
# be shown.
sub found_in
{
	my ($text) = @_;
	my @found;

	foreach my $kind (@kinds)
	{
		my $body = $secret{$kind}[1];
		my @parts = $body =~ /^[\d -]+$/ ? () : map { substr $body, $_, 8 } 0 .. length($body) - 8;

		# more than six digits from the front, or four from the back
		push @parts, substr($body, 0, 8), substr($body, -6) if $body =~ /^[\d -]+$/;
		push @found, $kind
		  if grep { index($text, $_) >= 0 } map { forms_of($_) } @parts;
	}
	return @found;
}

#
# With the redaction, which is the default
#

is($node->safe_psql('postgres', 'SHOW stripe_lifecycle.log_redaction'), 'on', 'it is on');
new_log();
go_all_ways(
	sub {
		my ($way, undef, $text) = @_;

		foreach my $format (sort keys %$text)
		{
			is(join(', ', found_in($text->{$format})), '', "$way: nothing in $format");
			like($text->{$format}, $way =~ /^bytea|with bytea/ ? qr/2a2a2a|\*\*\*/ : qr/\*\*\*/,
				"$way: but masked in $format");
		}
	});

# Statements are left out and shown in the detail, and nothing else is changed.
psql("SELECT $q, 1 / 0 /* statement */");
psql("SELECT 'harmless', 1 / 0 /* statement */");
my $text = new_log();
like($text->{log}, qr/DETAIL:  Statement, redacted: SELECT E'\*.*\/\* statement/,
	'the redacted statement is in the detail');
unlike($text->{log}, qr/STATEMENT:  SELECT E'/, 'and not a second time');
like($text->{log}, qr/STATEMENT:  SELECT 'harmless', 1 \/ 0 \/\* statement/,
	'a harmless statement is where it always is');
like($text->{json}, qr/"detail":"Statement, redacted: SELECT E'\*/, 'in jsonlog, too');
like($text->{json}, qr/"statement":"SELECT 'harmless'/, 'both');
like($text->{csv}, qr/"Statement, redacted: SELECT E'\*/, 'and in csvlog');
psql("DO \$\$ BEGIN RAISE EXCEPTION USING message = 'here', detail = 'A detail.' /* $all */; END \$\$");
like(new_log()->{log}, qr/DETAIL:  A detail\.\n\tStatement, redacted: DO /,
	'a detail stays before it');

# Prefixes and ids stay, so that one can tell what it was; lengths too.
psql("DO \$\$ BEGIN RAISE LOG '%', $q; END \$\$");
(my $masked = $all) =~ s{(.*)}{
	join ' / ', map {
		my ($prefix, $body) = @{ $secret{$_} };
		$prefix . ($prefix eq '' ? $body =~ s/\d/*/gr : '*' x length $body) } @kinds}e;
like(new_log()->{log}, qr/\Q$masked\E/, 'what is masked');

# The client gets what the log gets of a message that goes to both, and what is
# not logged as it is. It never gets its statement back in a detail.
my $told = psql("SET client_min_messages = notice; DO \$\$ BEGIN RAISE NOTICE '%', $q; END \$\$; SELECT $q\::int");
like($told, qr/NOTICE:.*\Q$all\E/, 'a notice that is not logged');
like($told, qr/\*\*\*.*out of range/, 'an error that is logged');
unlike($told, qr/Statement, redacted/, 'no statement for the client');
is(psql("SELECT $q") =~ /\Q$all\E/ ? 1 : 0, 1, 'data are not touched');

# Positions in statements are right.
like(psql("DO \$\$ BEGIN EXECUTE 'SELECT ''4242 4242 4242 4242'', nonsense'; END \$\$"),
	qr/QUERY:  SELECT '\*{4} \*{4} \*{4} \*{4}', nonsense/, 'an internal query is as long as before');
like(psql("SELECT '4242 4242 4242 4242', nonsense"), qr/LINE 1: SELECT '4242 4242 4242 4242', nonsense\n\s+\^/,
	'the client shows its own statement');
new_log();

# A process that dies has its statement quoted by the postmaster, and cut there.
$session->close;
foreach my $filler (0, 1010 - length 'SELECT pg_backend_pid(), pg_sleep(600) /**/, ')
{
	my $doomed = StripeLifecycle::spawn('psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
		'SELECT pg_backend_pid(), pg_sleep(600) /*' . 'x' x $filler . "*/, '4242 4242 4242 4242'");
	my $pid = eventually(
		sub { $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE query ~ '^SELECT pg_backend_pid' AND state = 'active'") },
		qr/^\d+$/, 'a process to be killed');

	kill 'KILL', $pid;
	StripeLifecycle::end_process($doomed);
	eventually(
		sub { slurp_file($log{log}, $seen{log}) },
		qr/Failed process was running: SELECT pg_backend_pid.*\n.*database system is ready/s,
		'the server has started again');
	$session = StripeLifecycle::Session->new($node, 'postgres');
	my $crash = new_log();
	$session->close;
	unlike($crash->{log}, qr/4242 ?4242/, 'the dead process: no card number');
	like($crash->{log}, qr/Failed process was running: .*'\*{4} \*{4}/, 'the dead process: but masked');
	is(join(', ', grep { $crash->{$_} =~ /4242 ?4242/ } sort keys %$crash), '', 'in no format');
}


#
# Without it, so that all of the above can fail
#

$node->safe_psql('postgres', 'ALTER SYSTEM SET stripe_lifecycle.log_redaction = off');
$node->restart;
$session = StripeLifecycle::Session->new($node, 'postgres');
new_log();
go_all_ways(
	sub {
		my ($way, $given, $text) = @_;
		my @given = grep { index($given, text_of($_)) >= 0 } @kinds;

		foreach my $format (sort keys %$text)
		{
			my %found = map { $_ => 1 } found_in($text->{$format});

			is(join(', ', grep { !$found{$_} } @given), '', "off, $way: all in $format");
		}
	});

$session->close;
$node->stop;
done_testing();
