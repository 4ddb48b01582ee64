
=pod

=head1 NAME

NextVersion - a version of stripe_lifecycle that comes after the one at hand

=head1 DESCRIPTION

To prove that an installed database can be brought to a later version takes a
later version. This one is made of the scripts at hand: something of every kind
is added, changed or removed, both in the script that creates the extension and
in a script that updates it; and a library is built that knows it.

All of it goes into an installation of PostgreSQL of the test's own, which is
made of links to the one that runs the tests (private_postgres in script/lib.sh).

=cut

package NextVersion;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Copy qw(copy);
use IPC::Run;
use PostgreSQL::Test::Utils;

# One change each: what it does to the script that creates the extension (a
# substitution, which must find its place), and the statements by which a
# database gets there. 'object' is what a comparison of the catalogs would name
# if the statements were forgotten.
our @changes = (
	{
		object => 'stripe_lifecycle.payments .*column.*channel',
		find => qr/(CREATE TABLE \@extschema\@\.payments \(.*?)(?=\tPRIMARY KEY)/s,
		put => "\tchannel             text NOT NULL DEFAULT 'web',\n",
		update => q{ALTER TABLE @extschema@.payments ADD COLUMN channel text NOT NULL DEFAULT 'web'},
	},
	{
		object => 'stripe_lifecycle.payments .*comment.*by which channel',
		find => qr/(COMMENT ON COLUMN \@extschema\@\.payments\.finished_at IS [^\n]*\n)/,
		put => qq{COMMENT ON COLUMN \@extschema\@.payments.channel IS 'by which channel it came';\n},
		update => q{COMMENT ON COLUMN @extschema@.payments.channel IS 'by which channel it came'},
	},
	{
		object => 'request_status .*expired',
		find => qr/('queued', 'in_flight', 'succeeded', 'rejected', 'unknown')(?=\);\nCOMMENT ON TYPE)/,
		put => q{, 'expired'},
		update => q{ALTER TYPE @extschema@.request_status ADD VALUE 'expired'},
	},
	{
		object => 'payments_channel',
		find => qr/(COMMENT ON COLUMN \@extschema\@\.payments\.channel IS [^\n]*\n)/,
		put => qq{CREATE INDEX payments_channel ON \@extschema\@.payments (channel);\n},
		update => q{CREATE INDEX payments_channel ON @extschema@.payments (channel)},
	},
	{
		# the default only, which old rows keep
		object => 'api_attempts .*column.*method.*GET',
		find => qr/(method              text NOT NULL DEFAULT) 'POST'/,
		put => q{ 'GET'},
		update => q{ALTER TABLE @extschema@.api_attempts ALTER COLUMN method SET DEFAULT 'GET'},
	},
	{
		object => 'api_attempts .*relation.*fillfactor=85',
		find => qr/(PRIMARY KEY \(request_id, attempt\)\n\) WITH \(fillfactor = )80/,
		put => '85',
		update => q{ALTER TABLE @extschema@.api_attempts SET (fillfactor = 85)},
	},
	{
		object => 'payments_capture_method_check.*never',
		find => qr/(CHECK \(capture_method IN \('automatic', 'automatic_async', 'manual')/,
		put => q{, 'never'},
		update => q{
			ALTER TABLE @extschema@.payments DROP CONSTRAINT payments_capture_method_check;
			ALTER TABLE @extschema@.payments ADD CONSTRAINT payments_capture_method_check
				CHECK (capture_method IN ('automatic', 'automatic_async', 'manual', 'never'))},
	},
	{
		# something goes
		object => 'api_requests_rejected',
		find => qr/()CREATE INDEX api_requests_rejected [^;]*;\n/,
		put => '',
		update => q{DROP INDEX @extschema@.api_requests_rejected},
	},
	{
		# at the end of the script, where the functions of before lose PUBLIC
		object => 'next_trigger.* function',
		find => qr/()(?=-- Last, when everything is there)/,
		put => \'table_and_trigger',
		update => \'table_and_trigger',
	},
	{
		object => 'next_notes.*acl.*stripe_lifecycle_worker',
		find => qr/()(?=-- Last, when everything is there)/,
		put => "GRANT SELECT ON \@extschema\@.next_notes TO stripe_lifecycle_worker;\n",
		update => q{GRANT SELECT ON @extschema@.next_notes TO stripe_lifecycle_worker},
	},
	{
		object => 'extension .*dumped.*next_notes',
		find => qr/()(?=-- Last, when everything is there)/,
		put => "SELECT pg_catalog.pg_extension_config_dump('\@extschema\@.next_notes', 'WHERE id > 0');\n",
		update => q{SELECT pg_catalog.pg_extension_config_dump('@extschema@.next_notes', 'WHERE id > 0')},
	},
	{
		object => 'stripe_lifecycle_next.*enabled A',
		find => qr/()(?=-- Last, when everything is there)/,
		put => "ALTER TABLE \@extschema\@.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_next;\n",
		update => q{ALTER TABLE @extschema@.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_next},
	},
	{
		# a function's body, and nothing else of it
		object => 'health\(\).*function.*all is well',
		find => qr/()'on all tables'/,
		put => q{'all is well'},
		update => \'health',
	},
	{
		object => 'stripe_lifecycle.conflicts .*view.*account',
		find => qr/(SELECT event_id, type, payment_id, payment_intent_id, reason, created, received_at)/,
		put => ', account',
		update => q{
			CREATE OR REPLACE VIEW @extschema@.conflicts WITH (security_barrier) AS
			SELECT event_id, type, payment_id, payment_intent_id, reason, created, received_at, account
			  FROM @extschema@.webhook_events
			 WHERE outcome = 'conflict'},
	},
	{
		object => 'wake_worker\(\).*function.*STABLE',
		find => qr/(CREATE FUNCTION \@extschema\@\.wake_worker\(\) RETURNS void\n\tLANGUAGE c) VOLATILE/,
		put => ' STABLE',
		update => q{ALTER FUNCTION @extschema@.wake_worker() STABLE},
	},
);

my $table_and_trigger = q{
CREATE TABLE @extschema@.next_notes (
	id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	note text NOT NULL
);
COMMENT ON TABLE @extschema@.next_notes IS 'what the next version has to say';
CREATE FUNCTION @extschema@.next_trigger() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$ BEGIN RETURN NULL; END $$;
COMMENT ON FUNCTION @extschema@.next_trigger() IS 'does nothing';
CREATE FUNCTION @extschema@.next_answer() RETURNS integer
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'sl_next_answer';
CREATE TRIGGER stripe_lifecycle_next AFTER INSERT ON @extschema@.payments
	FOR EACH ROW EXECUTE FUNCTION @extschema@.next_trigger();
};

my $next_c = q{
#include "postgres.h"

#include "fmgr.h"

#include "catalog.h"

PG_FUNCTION_INFO_V1(sl_next_answer);

Datum
sl_next_answer(PG_FUNCTION_ARGS)
{
	sl_require_version();
	PG_RETURN_INT32(42);
}
};

sub new
{
	my ($class) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $self = bless { dir => $dir, from => version_at_hand() }, $class;

	$self->{to} = $self->{from} . '.1';
	$self->make_installation;
	$self->{libraries}{ $self->{from} } = $self->keep_library('old');
	$self->build;
	$self->write_scripts;
	return $self;
}

sub version_at_hand
{
	return $1
	  if slurp_file('stripe_lifecycle.control') =~ /^default_version *= *'(.*)'/m;
	die 'the control file has no default_version';
}

sub run
{
	my ($what, @command) = @_;
	my $output;

	IPC::Run::run(\@command, '>&', \$output) or die "$what failed: $output";
	return $output;
}

sub make_installation
{
	my ($self) = @_;
	my $lib = abs_path('script/lib.sh');
	my $output = run('private_postgres', 'bash', '-c',
		'PG_CONFIG=$(command -v pg_config); export PG_CONFIG; . "$1"; private_postgres "$2"; echo "bindir=$bindir"',
		'bash', $lib, $self->{dir});

	$output =~ /^bindir=(.*)$/m or die "private_postgres says: $output";
	$self->{bindir} = $1;
	($self->{install_path} = $1) =~ s{/bin$}{};
	chomp($self->{$_} = run('pg_config', "$self->{bindir}/pg_config", "--$_"))
	  foreach qw(pkglibdir sharedir);
	chomp(my $so = run('pg_config', 'pg_config', '--pkglibdir'));
	$self->{tested_library} = "$so/stripe_lifecycle.so";
	copy($self->{tested_library}, "$self->{pkglibdir}/stripe_lifecycle.so")
	  or die "copy: $!";
	copy('stripe_lifecycle.control', "$self->{sharedir}/extension/") or die "copy: $!";
	copy($_, "$self->{sharedir}/extension/") or die "copy: $!"
	  foreach glob('sql/stripe_lifecycle--*.sql');
	return;
}

# The library that is installed, put aside under a name.
sub keep_library
{
	my ($self, $name) = @_;

	copy("$self->{pkglibdir}/stripe_lifecycle.so", "$self->{dir}/$name.so")
	  or die "copy: $!";
	return "$self->{dir}/$name.so";
}

# Two libraries of the next version: one that works with its own objects only,
# and one that works with those of before, too.
sub build
{
	my ($self) = @_;
	my $tree = "$self->{dir}/tree";

	mkdir $tree or die "mkdir: $!";
	run('cp', 'cp', '-r', 'src', 'sql', 'Makefile', 'stripe_lifecycle.control', $tree);
	append_to_file("$tree/src/next.c", $next_c);
	unlink glob("$tree/src/*.o"), "$tree/src/exports.txt";
	foreach my $accepts ($self->{to}, "$self->{from} $self->{to}")
	{
		# what depends on it is one file
		unlink "$tree/src/version.o", "$tree/stripe_lifecycle.so";
		run('make', 'make', '-s', '-C', $tree, "PG_CONFIG=$self->{bindir}/pg_config",
			"EXTVERSION=$self->{to}", "ACCEPTS=$accepts", 'stripe_lifecycle.so');
		copy("$tree/stripe_lifecycle.so", "$self->{dir}/$accepts.so") or die "copy: $!";
		$self->{libraries}{$accepts} = "$self->{dir}/$accepts.so";
	}
	return;
}

sub use_library
{
	my ($self, $accepts) = @_;
	my $target = "$self->{pkglibdir}/stripe_lifecycle.so";

	# another inode: what runs keeps the library it has
	unlink $target;
	copy($self->{libraries}{$accepts}, $target) or die "copy: $!";
	chmod 0755, $target;
	return;
}

# The statement that makes a function, out of a script.
sub definition
{
	my ($script, $name) = @_;

	$script =~ /^(CREATE FUNCTION \@extschema\@\.$name\(.*?^\$\$;\n)/ms
	  or die "no function $name";
	return $1;
}

# The next version's own script, by all of the changes.
sub full_script
{
	my ($self) = @_;
	my $script = slurp_file("sql/stripe_lifecycle--$self->{from}.sql");

	foreach my $change (@changes)
	{
		my $put = ref $change->{put} ? $table_and_trigger : $change->{put};

		$script =~ s/$change->{find}/$1$put/ or die "no place for $change->{object}";
	}
	return $script;
}

# The script of the update, as CONTRIBUTING.md wants it, without one of the
# changes if so wanted.
sub update_script
{
	my ($self, $without) = @_;
	my $health = definition($self->full_script, 'health');
	my $script = slurp_file('test/lib/update_begin.sql');
	my ($last) = $self->full_script =~ /^(-- Last, when everything is there\..*)\z/ms;

	$script =~ s/\@TO\@/$self->{to}/g;
	$health =~ s/^CREATE FUNCTION/CREATE OR REPLACE FUNCTION/;
	foreach my $change (@changes)
	{
		next if $without && $change == $without;
		$script .= (
			!ref $change->{update} ? $change->{update}
			: ${ $change->{update} } eq 'health' ? $health
			: $table_and_trigger) . ";\n";
	}
	return $script . $last . "\nSELECT \@extschema\@.wake_worker();\n";
}

sub write_file
{
	my ($self, $name, $text) = @_;
	my $path = "$self->{sharedir}/extension/$name";

	unlink $path;
	append_to_file($path, $text);
	return;
}

sub write_scripts
{
	my ($self, $without) = @_;

	$self->write_file("stripe_lifecycle--$self->{to}.sql", $self->full_script);
	$self->write_file("stripe_lifecycle--$self->{from}--$self->{to}.sql",
		$self->update_script($without));
	return;
}

1;
