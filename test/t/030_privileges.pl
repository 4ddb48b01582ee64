
# What docs/privileges.md says a role may do is what it really may do: a walk over every function,
# table, column, sequence, type and schema, for a role of each kind and for one that was granted
# nothing, which is to say for PUBLIC. It asks PostgreSQL, not the list in the extension.

use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $doc = slurp_file("$FindBin::RealBin/../../docs/privileges.md");
my @kinds = qw(web application auditor operator worker);

my $node = PostgreSQL::Test::Cluster->new('privileges');
$node->init(extra => ['--no-sync']);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'stripe_lifecycle'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION stripe_lifecycle; CREATE ROLE tap_public');
$node->safe_psql('postgres',
	"CREATE ROLE tap_$_; SELECT stripe_lifecycle.grant_$_('tap_$_')")
  foreach grep { $_ ne 'worker' } @kinds;

# The rows of the table under a heading, without the header, as lists of cells without code marks.
sub table_rows
{
	my ($heading) = @_;
	my ($table) = $doc =~ /^## \Q$heading\E\n(?:(?!^##|^\|)[^\n]*\n)*\|[^\n]*\n\|[- |]+\n((?:\|[^\n]*\n)+)/m
	  or die "there is no table under \"$heading\"";

	return map { [ map { s/`//g; s/^\s+|\s+$//gr } (split /\|/, $_, -1)[ 1 .. @kinds + 1 ] ] } split /\n/, $table;
}

# What each role may do with the objects of a query that gives class (as in has_CLASS_privilege),
# name, and an argument for that function; the privileges are those of the class.
my %privileges = (
	function => 'EXECUTE',
	table => 'SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER',
	column => 'SELECT,INSERT,UPDATE,REFERENCES',
	sequence => 'USAGE,SELECT,UPDATE',
	type => 'USAGE',
	schema => 'USAGE,CREATE');
$privileges{table} .= ',MAINTAIN'
  if $node->safe_psql('postgres', 'SHOW server_version_num') >= 170000;
my %role = (PUBLIC => 'tap_public', map { $_ => $_ eq 'worker' ? 'stripe_lifecycle_worker' : "tap_$_" } @kinds);

sub really
{
	my ($class, $objects) = @_;
	my %rows;

	foreach my $kind (@kinds, 'PUBLIC')
	{
		my $out = $node->safe_psql('postgres', qq{
			SELECT o.name, string_agg(p.name, ', ' ORDER BY p.n)
				FILTER (WHERE has_${class}_privilege('$role{$kind}', o.id, } .
			($class eq 'column' ? 'o.attnum, ' : '') . qq{p.name))
			  FROM ($objects) o,
				unnest(string_to_array('$privileges{$class}', ',')) WITH ORDINALITY AS p (name, n)
			 GROUP BY o.name});

		foreach (split /\n/, $out)
		{
			my ($name, $may) = split /\|/, $_, -1;
			$rows{$name}{$kind} = $may;
		}
	}
	return \%rows;
}

# A test: the table under this heading has a row for each object, and in it what is true.
sub same_table
{
	my ($heading, $class, $objects) = @_;
	my $really = really($class, $objects);
	my @wanted = map { my $name = $_; join(' | ', $name, map { $really->{$name}{$_} } @kinds) } sort keys %$really;

	cmp_ok(scalar @wanted, '>', 0, "$heading: not of nothing");
	is(join("\n", map { join(' | ', @$_) } sort { $a->[0] cmp $b->[0] } table_rows($heading)),
		join("\n", @wanted), "$heading: as documented");
	is(join(', ', grep { $really->{$_}{PUBLIC} ne '' } sort keys %$really), '', "$heading: nothing is PUBLIC's");
	return;
}

my $here = "'stripe_lifecycle'::regnamespace";
same_table('Functions', 'function',
	"SELECT oid AS id, proname || '(' || oidvectortypes(proargtypes) || ')' AS name
	   FROM pg_proc WHERE pronamespace = $here");
same_table('Tables and views', 'table',
	"SELECT oid AS id, relname AS name FROM pg_class WHERE relnamespace = $here AND relkind NOT IN ('i', 'S', 'c', 't')");
same_table('Sequences', 'sequence',
	"SELECT oid AS id, relname AS name FROM pg_class WHERE relnamespace = $here AND relkind = 'S'");
same_table('Types', 'type',
	"SELECT oid AS id, typname AS name FROM pg_type WHERE typnamespace = $here AND typcategory <> 'A' AND typtype <> 'c'");
same_table('Schema', 'schema', "SELECT oid AS id, nspname AS name FROM pg_namespace WHERE nspname = 'stripe_lifecycle'");

# Columns, of the tables where somebody has some of them only: what is not in the table of columns
# follows from the table of tables.
same_table('Columns', 'column', qq{
	SELECT c.oid AS id, a.attnum, c.relname || '.' || a.attname AS name
	  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	 WHERE c.relnamespace = $here AND c.relkind NOT IN ('i', 'S', 'c', 't')
	   AND EXISTS (SELECT FROM pg_attribute x WHERE x.attrelid = c.oid AND x.attacl IS NOT NULL)});

# Whatever else a role could have got hold of.
is($node->safe_psql('postgres', q{
	SELECT rolname FROM pg_roles r WHERE rolname ~ '^(tap_|stripe_lifecycle_)'
	   AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolcanlogin
		OR EXISTS (SELECT FROM pg_auth_members m WHERE r.oid IN (m.member, m.roleid)))}),
	'', 'no grant gives an attribute or a membership');
is($node->safe_psql('postgres', 'SELECT * FROM stripe_lifecycle.granted_privileges() WHERE grantable OR grantee = 0'),
	'', 'nothing may be passed on');

# And the list in the extension, which the grants are made of, says the same.
is($node->safe_psql('postgres', q{
	SELECT g.* FROM stripe_lifecycle.granted_privileges() g JOIN pg_roles r ON r.oid = g.grantee
	 WHERE NOT EXISTS (SELECT FROM stripe_lifecycle.privileges() p
		WHERE (p.privilege, p.class, p.object) = (g.privilege, g.class, g.object)
		  AND p.column_name IS NOT DISTINCT FROM g.column_name
		  AND CASE p.kind WHEN 'worker' THEN 'stripe_lifecycle_worker' ELSE 'tap_' || p.kind END = r.rolname)}),
	'', 'nothing was granted that is not in the list');
is($node->safe_psql('postgres', q{
	SELECT p.* FROM stripe_lifecycle.privileges() p
	 WHERE NOT EXISTS (SELECT FROM stripe_lifecycle.granted_privileges() g JOIN pg_roles r ON r.oid = g.grantee
		WHERE (p.privilege, p.class, p.object) = (g.privilege, g.class, g.object)
		  AND p.column_name IS NOT DISTINCT FROM g.column_name
		  AND CASE p.kind WHEN 'worker' THEN 'stripe_lifecycle_worker' ELSE 'tap_' || p.kind END = r.rolname)}),
	'', 'all of the list was granted');

#
# Customers behind a gateway: whose payment it is not does not even wait for whoever is at work on it
#

$node->append_conf('postgresql.conf', "stripe_lifecycle.owner_claim = 'sub'");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT current_setting('stripe_lifecycle.owner_claim') = 'sub'}),
	'payments have owners');

# As PostgREST calls a function: returns what it says, or the SQLSTATE.
sub request
{
	my ($customer, $call) = @_;
	my ($status, $out, $err) = $node->psql('postgres', qq{
		\\set VERBOSITY sqlstate
		BEGIN;
		SET LOCAL lock_timeout = '500ms';
		SET LOCAL ROLE tap_application;
		SELECT set_config('request.jwt.claims', '{"sub": "$customer"}', true) \\g /dev/null
		SELECT stripe_lifecycle.$call;
		COMMIT;} =~ s/\\\\/\\/gr);

	return $err =~ /ERROR:\s+(\w{5})/ ? $1 : $out;
}

my $payment = request('alice', "create_payment(2000, 'usd', 'order')");
like($payment, qr/^[0-9a-f-]{36}$/, 'a customer creates a payment');
my $other = $node->background_psql('postgres');
$other->query_safe("BEGIN; SELECT FROM stripe_lifecycle.payments WHERE id = '$payment' FOR UPDATE");
is(request('bob', "$_('$payment')"), 'SL017', "while it is locked, to others it is unknown to $_()")
  foreach qw(payment_status confirm_payment cancel_payment);
is(request('alice', "cancel_payment('$payment')"), '55P03', 'while its owner has to wait');
$other->query_safe('ROLLBACK');
$other->quit;
like(request('alice', "cancel_payment('$payment')"), qr/^\d+$/, 'and then does not');
is(request('bob', "cancel_payment('$payment')"), 'SL017', 'others never do');

$node->stop;
done_testing();
