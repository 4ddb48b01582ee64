# What the README says of states, functions, tables, settings and SQLSTATEs is what the extension
# has: each table there is compared with the catalogs, or with the source that defines it. So are
# the checks, log messages, settings and columns of docs/operations.md.

use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $readme = slurp_file("$top/README.md");
my $operations = slurp_file("$top/docs/operations.md");

# The rows of the table under a heading, as lists of cells without code marks. Of several tables
# the one whose header has this first column. The text is the README's unless another is given.
sub table_rows
{
	my ($heading, $first_column, $text) = @_;
	my ($section) = ($text // $readme) =~ /^##+ \Q$heading\E\n(.*?)(?=^##|\z)/ms
	  or die "there is no section \"$heading\"";
	my ($table) = $section =~ /^\| \Q$first_column\E \|[^\n]*\n\|[- |]+\n((?:\|[^\n]*\n)+)/m
	  or die "section \"$heading\" has no table \"$first_column\"";
	my @rows;

	for my $line (split /\n/, $table)
	{
		my @cells = map { s/`//g; s/^\s+|\s+$//gr } split /\|/, $line =~ s/^\|//r, -1;
		pop @cells;
		push @rows, \@cells;
	}
	return @rows;
}

sub same_lists
{
	my ($name, $got, $expected) = @_;

	is(join("\n", sort @$got), join("\n", sort @$expected), $name);
	cmp_ok(scalar @$expected, '>', 0, "$name: not of nothing");
}

my $node = PostgreSQL::Test::Cluster->new('docs');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'stripe_lifecycle'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION stripe_lifecycle');

sub column
{
	return [ split /\n/, $node->safe_psql('postgres', shift) ];
}

# States and edges
same_lists(
	'states',
	[ map { $_->[0] } table_rows('States', 'state') ],
	column('SELECT unnest(enum_range(NULL::stripe_lifecycle.payment_state))'));
same_lists(
	'table of edges',
	[ map { join('|', @$_) } table_rows('States', 'from') ],
	column('SELECT * FROM stripe_lifecycle.legal_transitions()'));
my ($diagram) = $readme =~ /^stateDiagram-v2\n(.*?)^```/ms;
same_lists(
	'diagram of edges',
	[ $diagram =~ /^\s*(\S+ --> \S+)$/mg ],
	column(q{SELECT format('%s --> %s', coalesce(from_state::text, '[*]'), to_state)
			 FROM stripe_lifecycle.legal_transitions()}));

# Functions, with the names of their arguments in order
my @functions;
for my $row (table_rows('Functions', 'function'))
{
	my $cell = $row->[0];

	while ($cell =~ /(\w+)\(([^()]*(?:\(\)[^()]*)*)\)(?: →|,|$)/g)
	{
		my ($name, $arguments) = ($1, $2);
		push @functions, "$name(" . join(',', map { /(\w+)/ } split(/, /, $arguments)) . ')';
	}
}
same_lists(
	'functions and their arguments',
	\@functions,
	column(q{SELECT DISTINCT format('%s(%s)', proname, coalesce(array_to_string(proargnames[1:pronargs], ','), oidvectortypes(proargtypes)))
			 FROM pg_proc WHERE pronamespace = 'stripe_lifecycle'::regnamespace}));

# Tables
same_lists(
	'tables',
	[ map { $_->[0] } table_rows('Tables', 'table') ],
	column(q{SELECT relname FROM pg_class
			 WHERE relnamespace = 'stripe_lifecycle'::regnamespace AND relkind IN ('r', 'v')}));

# Settings and their defaults
same_lists(
	'settings and defaults',
	[ map { "$_->[0]|$_->[1]" } table_rows('Settings', 'setting') ],
	column(q{SELECT name || '|' || current_setting(name) FROM pg_settings
			 WHERE name LIKE 'stripe\_lifecycle.%'}));

# SQLSTATEs
my $errors = slurp_file("$top/src/errors.h");
same_lists(
	'SQLSTATEs',
	[ map { $_->[0] } table_rows('SQLSTATEs', 'code') ],
	[ map { s/[^0-9]//gr =~ s/^/SL/r } $errors =~ /^#define SL_ERRCODE_\w+\s+SL_SQLSTATE(\(.*\))$/mg ]);

# The operator's guide: checks of health(), in the order in which it shows them
my @checks;
for my $row (table_rows('health()', 'check', $operations))
{
	push @checks, $row->[0] unless @checks && $checks[-1] eq $row->[0];
}
is(join("\n", @checks),
	$node->safe_psql('postgres', 'SELECT check_name FROM stripe_lifecycle.health()'),
	'operations: checks of health()');

# Settings, and whatever else it gives the schema's name
my $named = sub {
	my ($query) = @_;
	return { map { $_ => 1 } @{ column($query) } };
};
my $settings = $named->(
	q{SELECT name FROM pg_settings WHERE name LIKE 'stripe\_lifecycle.%'});
my $objects = $named->(
	q{SELECT 'stripe_lifecycle.' || relname FROM pg_class
	   WHERE relnamespace = 'stripe_lifecycle'::regnamespace
	  UNION SELECT 'stripe_lifecycle.' || proname FROM pg_proc
	   WHERE pronamespace = 'stripe_lifecycle'::regnamespace});
is_deeply(
	[ grep { !$settings->{$_} } map { $_->[0] } table_rows('Settings to tune', 'setting', $operations) ],
	[], 'operations: settings to tune exist');
is_deeply(
	[ grep { !$settings->{$_} && !$objects->{$_} } $operations =~ /\b(stripe_lifecycle\.\w+)/g ],
	[], 'operations: what it names exists');

# Columns of the statistics, in order
is(join("\n", map { $_->[0] } table_rows('pg_stat_stripe_lifecycle', 'column', $operations)),
	join("\n", @{ column(q{SELECT attname FROM pg_attribute
		WHERE attrelid = 'stripe_lifecycle.pg_stat_stripe_lifecycle'::regclass AND attnum > 0
		ORDER BY attnum}) }),
	'operations: columns of pg_stat_stripe_lifecycle');

# Warnings, as the sources have them, with ... for what is filled in
my %warnings;
for my $file (glob "$top/src/*.c")
{
	my $source = slurp_file($file);

	while ($source =~ /ereport\([^,"]*\bWARNING,.*?errmsg\(((?:\s*(?:"(?:\\.|[^"\\])*"|INT64_FORMAT))+)/gs)
	{
		my $message = join '', map { /^"(.*)"$/s ? $1 : '%s' } $1 =~ /"(?:\\.|[^"\\])*"|INT64_FORMAT/g;

		$warnings{ $message =~ s/%[a-z]+/.../gr =~ s/\\"/"/gr } = 1;
	}
}
same_lists(
	'operations: warnings',
	[ map { $_->[0] } table_rows('Warnings in the log', 'message', $operations) ],
	[ keys %warnings ]);

# The reasons that its tables quote from the views
my $views = slurp_file("$top/sql/stripe_lifecycle--1.0.sql");
is_deeply(
	[ grep { index($views, $_) < 0 } map { split /; /, $_->[0] } table_rows('stuck_payments', 'why', $operations) ],
	[], 'operations: reasons of stuck_payments');

# The page on privacy: settings and links within it
my $privacy = slurp_file("$top/docs/privacy.md");
is_deeply(
	[ grep { !$settings->{$_} && !$objects->{$_} } $privacy =~ /\b(stripe_lifecycle\.\w+)/g ],
	[], 'privacy: what it names exists');

# What the worker's role may do with which table
my %worker_rights;
for my $row (table_rows('Least privilege', 'object', $operations))
{
	my $rights = join ' ', sort grep { /^[A-Z]+$/ } split /[,; ]+/, $row->[1];

	$worker_rights{$_} = $rights foreach grep { !/ / } split /, /, $row->[0];
}
is_deeply(
	{ map { $_ => $worker_rights{$_} } grep { $worker_rights{$_} ne '' } keys %worker_rights },
	{ map { split /\|/ } @{ column(q{SELECT split_part(object, '.', 2), string_agg(privilege, ' ' ORDER BY privilege)
		  FROM stripe_lifecycle.privileges() WHERE kind = 'worker' AND class = 'TABLE' GROUP BY 1}) } },
	'operations: rights of the worker');

# Class SL only
my %codes = map { $_->[0] => 1 } table_rows('SQLSTATEs', 'code');
is_deeply([ grep { !$codes{$_} } $operations =~ /\b(SL\d{3})\b/g ], [],
	'operations: SQLSTATEs exist');

# Links within it
my %anchors = map { (lc =~ s/[^\w\- ]//gr =~ s/ /-/gr) => 1 } $operations =~ /^##+ (.*)$/mg;
is_deeply([ grep { !$anchors{$_} } $operations =~ /\]\(#([^)]*)\)/g ], [], 'operations: links');

$node->stop;
done_testing();
