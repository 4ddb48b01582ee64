# docs/audit.md says how to recompute the audit trail: its commands are run, and its example is what the
# library takes for true. verify_audit() needs no more memory for more payments.

use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $doc = slurp_file("$top/docs/audit.md");

# ---------- the commands of the page ----------

my @blocks = $doc =~ /^```(\w*)\n(.*?)^```$/msg;
my $script = '';
my (@expected, $query);

while (my ($kind, $text) = splice @blocks, 0, 2)
{
	$script .= $text if $kind eq 'bash';
	$query = $text if $kind eq 'sql';
	push @expected, $text if $kind eq '' && $text =~ /^[0-9a-f]{64}/;
}
is(scalar @expected, 2, 'the page shows two hashes');
my ($shown, $complaints) = run_command([ 'bash', '-eu', '-c', $script ]);
is("$shown\n", join('', @expected), 'bash and sha256sum give what the page says');
is($complaints, '', 'without a complaint');
my @hashes = $shown =~ /([0-9a-f]{64})/g;

# ---------- its example in a database ----------

# little shared memory, so that a process' size is its own
my $node = PostgreSQL::Test::Cluster->new('audit');
$node->init(extra => [ '--encoding=UTF8', '--locale=C', '--no-sync' ]);
$node->append_conf('postgresql.conf', "shared_buffers = 4MB\nwork_mem = 1MB\nlog_statement = none\njit = off\n");
$node->start;
$node->safe_psql('postgres', "CREATE DATABASE small; CREATE DATABASE large");
$node->safe_psql('postgres', "CREATE EXTENSION stripe_lifecycle");
my $id = '01900000-0000-7000-8000-000000000001';
$node->safe_psql('postgres', qq{
	INSERT INTO stripe_lifecycle.payment_transitions VALUES
	('$id', 1, NULL, 'created', '2026-11-25 18:00:00.123456Z', 'create_payment', NULL, NULL, NULL, 'shop', NULL, 2000, 'usd', NULL, '\\x$hashes[0]'),
	('$id', 2, 'created', 'succeeded', '2026-11-25 18:00:09.000001Z', 'webhook', 'evt_1', 'payment_intent.succeeded', '2026-11-25 18:00:08Z', 'web', NULL, 2000, 'usd', false, '\\x$hashes[1]');
	INSERT INTO stripe_lifecycle.payments (id, idempotency_key, state, amount, currency, livemode, transitions, finished_at, audit_head)
	VALUES ('$id', 'of the page', 'succeeded', 2000, 'usd', false, 2, '2026-11-25 18:00:09.000001Z', '\\x$hashes[1]')});
is($node->safe_psql('postgres', 'SELECT count(*) FROM stripe_lifecycle.verify_audit()'), 0, 'the library finds the example proven');
my ($columns) = $doc =~ /^\| column \| bytes \|\n\|[- |]+\n((?:\|.*\n)+)/m;
is(join(' ', $columns =~ /^\| `(\w+)`/mg, 'hash'),
	$node->safe_psql('postgres', "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = 'stripe_lifecycle.payment_transitions'::regclass AND attnum > 0 AND attname <> 'position'"),
	'the columns are those of the page, in that order');

# every label of a problem is explained, and none that does not exist
my %labels = map { $_ => 1 } slurp_file("$top/src/audit.c") =~ /\bfound\(r, [^"]*"(\w+)"/g,
  slurp_file("$top/src/verify.c") =~ /'(event_\w+)',/g;
my ($problems) = $doc =~ /^\| problem \| meaning \|\n\|[- |]+\n((?:\|.*\n)+)/m;
is(join(' ', sort $problems =~ /^\| `(\w+)`/mg), join(' ', sort keys %labels), 'the problems of the page are those of the library');

# ---------- many payments ----------

sub fill
{
	my ($database, $n) = @_;
	my $helpers = slurp_file("$top/test/setup/audit.sql") . slurp_file("$top/test/setup/bulk.sql");

	$node->safe_psql($database, "CREATE EXTENSION stripe_lifecycle; CREATE SCHEMA t;\n\\set n $n\n$helpers");
	return;
}

# The most memory that a session takes which verifies, in kB.
sub peak
{
	my ($database) = @_;
	my $status = $node->safe_psql($database,
		"SELECT count(*) FROM stripe_lifecycle.verify_audit() \\gset
		 SELECT :count || ' ' || substring(pg_read_file('/proc/' || pg_backend_pid() || '/status') FROM 'VmHWM:\\s*(\\d+)')");

	is((split ' ', $status)[0], 0, "$database: nothing found");
	return (split ' ', $status)[1];
}

fill('small', 100);
fill('large', 20_000);
my ($small, $large) = (peak('small'), peak('large'));
note("verify_audit() of 100 payments: $small kB; of 20000: $large kB");
cmp_ok($large - $small, '<', 8_000, 'two hundred times the payments do not take more memory than a sort may');

# one altered row among them is found, and the page's query finds it too
$node->safe_psql('large', 'ALTER TABLE stripe_lifecycle.payment_transitions DISABLE TRIGGER ALL');
is($node->safe_psql('large', $query), '', 'the query of the page finds nothing');
$node->safe_psql('large', "UPDATE stripe_lifecycle.payment_transitions SET at = at + interval '1 us'
	WHERE payment_id = t.bulk_id(12345) AND seq = 2");
my $altered = '01900000-0000-7000-8000-000000003039|2';
is($node->safe_psql('large', $query), $altered, 'the query of the page finds the altered row');
is($node->safe_psql('large', 'SELECT payment_id, seq FROM stripe_lifecycle.verify_audit()'), $altered, 'and so does verify_audit()');

$node->stop;
done_testing();
