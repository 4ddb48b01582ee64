# Whatever is done to a sealed audit trail by somebody who may do anything in the database is found:
# by verify_checkpoints(), or by stripe_lifecycle_verify from an export, public keys and saved logs.
# So is whatever is done to an export.

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256 sha256_hex);
use FindBin;
use lib "$FindBin::RealBin/../lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SealedTrail;
use StripeLifecycle;
use Test::More;

my $PRIVATE = 'kept-out-of-the-trail';

my $stripe = StripeLifecycle::StandIn->new(seed => 41);
my $server = StripeLifecycle->new('main', $stripe, conf => "wal_level = replica\nmax_wal_senders = 4\n");
my $dir = $server->{dir};
my $key = make_key();
my $thief = make_key();
my $verifier = $server->node->config_data('--bindir') . '/stripe_lifecycle_verify';

write_secret("$dir/checkpoint_key", $key);
write_secret("$dir/public_key", public_key($key), 0644);
write_secret("$dir/thief_public_key", public_key($thief), 0644);

sub newest
{
	return $server->value('SELECT coalesce(max(number), 0) FROM stripe_lifecycle.audit_checkpoints');
}

# Seal what there is, and nothing from then on: each setting is a reload, which has the worker look.
sub seal
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = newest();

	$server->configure("stripe_lifecycle.checkpoint_key_file = '$dir/checkpoint_key'",
		'stripe_lifecycle.checkpoint_interval = 1s');
	eventually(
		sub {
			newest() > $before && $server->value('SELECT count(*) FROM stripe_lifecycle.payment_transitions
				 WHERE position > (SELECT max(to_position) FROM stripe_lifecycle.audit_checkpoints)');
		}, 0, "$name: sealed");
	return $server->configure('stripe_lifecycle.checkpoint_interval = 0');
}

#
# A trail of four checkpoints, of payments that ended in every way, and an unsealed rest
#

my @payments;

foreach my $n (1 .. 4)
{
	my @new = map {
		$server->create_payment(
			description => $PRIVATE,
			receipt_email => "$PRIVATE\@example.com",
			metadata => { $PRIVATE => $PRIVATE })
	} 1 .. 4;

	$server->intent_known($_) foreach @new;
	$stripe->pay($server->payment($new[0], 'client_secret'), 'pm_card_visa');
	$stripe->pay($server->payment($new[1], 'client_secret'), 'pm_card_chargeDeclined');
	$server->sql("SELECT stripe_lifecycle.cancel_payment('$new[2]')");
	eventually(sub { $server->deliver_webhooks($stripe); $server->state($new[2]) }, 'failed', "group $n");
	push @payments, @new;
	seal("group $n");
}
my $before_rest = $server->value('SELECT clock_timestamp()');
my $rest = $server->create_payment(description => $PRIVATE);
my $log = "$dir/saved.log";
write_secret($log, $server->log_text, 0644);

#
# Tools
#

# Runs the verifier: its exit status and all it said.
sub verify
{
	my ($export, @arguments) = @_;
	my $output;

	IPC::Run::run([ $verifier, @arguments ], '<', \$export, '>', \$output, '2>&1');
	return { status => $? >> 8, signal => $? & 127, text => $output };
}

sub judged
{
	my ($got, $status, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return ok(1, $name)
	  if $got->{signal} == 0 && $got->{status} == $status && $got->{text} =~ $pattern;
	ok(0, $name);
	diag("wanted $status $pattern, got $got->{status}, signal $got->{signal}:\n$got->{text}");
	return 0;
}

my @keys = ('--public-key', "$dir/public_key");
my @all = (@keys, '--log', $log, '-');

sub export_of
{
	my ($arguments) = @_;

	return $server->sql("SELECT stripe_lifecycle.audit_export($arguments)") . "\n";
}

#
# As it is
#

is($server->value('SELECT count(*) FROM stripe_lifecycle.verify_checkpoints()'), 0, 'all is well');
is($server->value('SELECT count(*) FROM stripe_lifecycle.verify_audit()'), 0, 'with the chains, too');
my %export = (json => export_of(''), csv => export_of("format => 'csv'"));
foreach my $format (sort keys %export)
{
	judged(verify($export{$format}, @all), 0, qr/, 1 of them not sealed yet; 4 checkpoints, numbers 1 to 4\n.*^OK$/ms,
		"$format: export, keys and log agree");
	judged(verify($export{$format}, @keys, '-'), 0, qr/no log was given.*^OK$/ms, "$format: without a log");
	judged(verify($export{$format}, '--quiet', @all), 0, qr/^\z/, "$format: quietly");
	unlike($export{$format}, qr/\Q$PRIVATE\E|pi_|secret/, "$format: nothing private is in it");
}
is($server->value(q{SELECT string_agg(l, '') FROM stripe_lifecycle.audit_export() l WHERE l::json ->> 'record' IS NULL}),
	'', 'each line is JSON');
judged(verify('', @keys, '--log', $log), 0, qr/4 checkpoints in the log\nOK/, 'the log alone');
write_secret("$dir/export.json", $export{json}, 0644);
judged(verify('', @keys, '--log', $log, "$dir/export.json"), 0, qr/^OK$/m, 'from a file');
judged(verify($server->log_text, @keys, '--log', '-', "$dir/export.json"), 0, qr/^OK$/m, 'the log from standard input');

# a part of it: whole checkpoints
my @times = split /\n/, $server->sql('SELECT first_at FROM stripe_lifecycle.audit_checkpoints ORDER BY number');
my $part = export_of("'$times[1]', '$times[2]'");
judged(verify($part, @all), 0, qr/1 checkpoints, numbers 2 to 2\n.*^OK$/ms, 'a part');
judged(verify(export_of("'$times[1]', '$times[2]'::timestamptz + interval '1 us', 'csv'"), @all),
	0, qr/2 checkpoints, numbers 2 to 3\n.*^OK$/ms, 'a part is widened to whole checkpoints');
judged(verify(export_of("since => '$before_rest'"), @all), 0, qr/^1 transitions, 1 of them not sealed yet; 0 checkpoints/,
	'the unsealed rest');
judged(verify(export_of("'2001-01-01', '2001-01-02'"), @all), 0, qr/^0 transitions/, 'nothing');
foreach my $wrong ([ q{format => 'xml'}, qr/must be json or csv/ ], [ 'format => NULL', qr/must be json or csv/ ],
	[ q{'2026-01-02', '2026-01-01'}, qr/must not be later/ ])
{
	fails_with($server->error("SELECT stripe_lifecycle.audit_export($wrong->[0])"),
		'SL015', $wrong->[1], "audit_export($wrong->[0])");
}
is($server->value("SELECT count(*) FROM stripe_lifecycle.verify_checkpoints('$times[2]')"), 0, 'a part, checked within');

# An auditor may do all this, and nobody else; on a read-only server, too.
$server->sql('CREATE ROLE auditor; SELECT stripe_lifecycle.grant_auditor(\'auditor\'); CREATE ROLE nobody; GRANT USAGE ON SCHEMA stripe_lifecycle TO nobody');
is($server->value('SET ROLE auditor; SELECT count(*) FROM stripe_lifecycle.verify_checkpoints();'), 0, 'an auditor may check');
is($server->value('SELECT count(*) FROM stripe_lifecycle.audit_export()'), scalar(split /\n/, $export{json}), 'and export');
foreach my $call ('audit_export()', 'verify_checkpoints()')
{
	is($server->error("SET ROLE nobody; SELECT stripe_lifecycle.$call")->{sqlstate}, '42501', "not everybody may call $call");
}
$server->sql('RESET ROLE');
$server->node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($server->node, 'base', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', 'SELECT count(*) FROM stripe_lifecycle.verify_checkpoints()'), 0, 'a standby can check');
is($standby->safe_psql('postgres', 'SELECT stripe_lifecycle.audit_export()') . "\n", $export{json}, 'and export');
$standby->stop;

#
# Somebody who may do anything in the database
#

# Tampers, asks what is found, and takes it back. Names of findings, as checkpoint:kind, and the
# export of the state in between.
sub tamper
{
	my ($sql) = @_;
	my $file = "$dir/tampered";

	$server->sql(qq{
		BEGIN;
		ALTER TABLE stripe_lifecycle.payments DISABLE TRIGGER ALL;
		ALTER TABLE stripe_lifecycle.payment_transitions DISABLE TRIGGER ALL;
		ALTER TABLE stripe_lifecycle.audit_checkpoints DISABLE TRIGGER ALL;
		$sql});
	my $found = join ' ', split /\n/, $server->sql(
		q{SELECT checkpoint || ':' || replace(problem, ' ', '_') FROM stripe_lifecycle.verify_checkpoints()});
	my $exported = export_of('');
	my $audit = $server->value('SELECT count(*) FROM stripe_lifecycle.verify_audit()');
	$server->sql('ROLLBACK');
	return ($found, $exported, $audit);
}

# Position of the nth transition of the trail, from 1.
sub position
{
	return $server->value("SELECT position FROM stripe_lifecycle.payment_transitions ORDER BY position OFFSET $_[0] - 1 LIMIT 1");
}

my $t = 'stripe_lifecycle.payment_transitions';
my $succeeded = $payments[0];
my ($second, $third) = (position(2), position(3));
my $last_sealed = $server->value('SELECT to_position FROM stripe_lifecycle.audit_checkpoints WHERE number = 4');

# The columns of a row without its place and chain, and a hash that goes with changed ones
my $rehash = q{
	CREATE TEMP TABLE chained ON COMMIT DROP AS SELECT * FROM stripe_lifecycle.payment_transitions WHERE false;
	CREATE OR REPLACE FUNCTION pg_temp.f(s text) RETURNS bytea LANGUAGE sql AS
		$$ SELECT CASE WHEN s IS NULL THEN '\xffffffff' ELSE int4send(octet_length(s)) || convert_to(s, 'UTF8') END $$;
	CREATE OR REPLACE FUNCTION pg_temp.z(t timestamptz) RETURNS text LANGUAGE sql AS
		$$ SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;
	CREATE OR REPLACE FUNCTION pg_temp.rehash(id uuid) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		r record;
		h bytea := decode(repeat('00', 32), 'hex');
	BEGIN
		FOR r IN SELECT * FROM stripe_lifecycle.payment_transitions WHERE payment_id = id ORDER BY seq LOOP
			h := sha256(h || pg_temp.f(r.payment_id::text) || pg_temp.f(r.seq::text) || pg_temp.f(r.from_state::text)
				|| pg_temp.f(r.to_state::text) || pg_temp.f(pg_temp.z(r.at)) || pg_temp.f(r.source) || pg_temp.f(r.event_id)
				|| pg_temp.f(r.event_type) || pg_temp.f(pg_temp.z(r.event_created)) || pg_temp.f(r.role) || pg_temp.f(r.note)
				|| pg_temp.f(r.amount::text) || pg_temp.f(r.currency) || pg_temp.f(r.livemode::text));
			UPDATE stripe_lifecycle.payment_transitions SET hash = h WHERE payment_id = id AND seq = r.seq;
		END LOOP;
		UPDATE stripe_lifecycle.payments SET audit_head = h WHERE payments.id = rehash.id;
	END $$;
};
my $change_amount = "$rehash
	UPDATE $t SET amount = 1 WHERE payment_id = '$succeeded';
	UPDATE stripe_lifecycle.payments SET amount = 1, amount_received = 1 WHERE id = '$succeeded';
	SELECT pg_temp.rehash('$succeeded');";

# name, statements, what verify_checkpoints() finds, what the verifier says, the other way to find it
my @ways = (
	[ 'nothing at all', '', '', 0, qr/^OK$/m ],
	[ 'an amount is changed in the trail', "UPDATE $t SET amount = 1 WHERE position = $second", '', 1,
		qr/^transition 1 of payment \S+, position $second: altered/, 'audit' ],
	[ 'an amount is changed, hashes and payment with it', $change_amount, '1:changed_transitions', 1,
		qr/^checkpoint 1: changed transitions/ ],
	[ 'a payment is deleted with its whole trail', "DELETE FROM $t WHERE payment_id = '$succeeded';
		DELETE FROM stripe_lifecycle.payments WHERE id = '$succeeded'", '1:missing_transitions', 1,
		qr/^checkpoint 1: missing transitions: \d+ transitions were sealed/ ],
	[ 'the newest rows are deleted', "DELETE FROM $t WHERE position >= $last_sealed", '4:missing_transitions', 1,
		qr/^checkpoint 4: missing transitions/ ],
	[ 'the trail is truncated', "TRUNCATE $t", '1:missing_transitions 2:missing_transitions 3:missing_transitions 4:missing_transitions', 1,
		qr/^checkpoint 1: missing transitions: \d+ transitions were sealed, 0 are there/ ],
	[ 'a row is added among the old', "INSERT INTO $t SELECT gen_random_uuid(), 1, NULL, 'created', at, 'create_payment', NULL, NULL,
		NULL, 'x', NULL, 5, 'usd', NULL, sha256('x'), position FROM $t WHERE position = $third", '1:disorder 1:added_transitions', 1,
		qr/^checkpoint 1: added transitions/m ],
	[ 'a row is added before all others', "INSERT INTO $t SELECT gen_random_uuid(), 1, NULL, 'created', at, 'create_payment', NULL, NULL,
		NULL, 'x', NULL, 5, 'usd', NULL, sha256('x'), 0 FROM $t WHERE position = $third", '1:added_transitions', 1,
		qr/^checkpoint 1: added transitions: 1 transitions at positions before it/m ],
	[ 'a row is added as far before them as can be', "INSERT INTO $t SELECT gen_random_uuid(), 1, NULL, 'created', at, 'create_payment', NULL, NULL,
		NULL, 'x', NULL, 5, 'usd', NULL, sha256('x'), -9223372036854775808 FROM $t WHERE position = $third", '1:disorder 1:added_transitions', 2,
		qr/line 3: the transition is malformed/ ],
	[ 'a row loses its hash', "ALTER TABLE $t ALTER hash DROP NOT NULL; UPDATE $t SET hash = NULL WHERE position = $third",
		'1:changed_transitions', 2, qr/line \d+: the transition is malformed/, 'audit' ],
	[ 'a row loses all that it has', "ALTER TABLE $t ALTER hash DROP NOT NULL, ALTER at DROP NOT NULL, ALTER to_state DROP NOT NULL,
		ALTER source DROP NOT NULL, ALTER role DROP NOT NULL, ALTER amount DROP NOT NULL, ALTER currency DROP NOT NULL;
		UPDATE $t SET hash = NULL, at = NULL, to_state = NULL, source = NULL, role = NULL, amount = NULL, currency = NULL,
		livemode = NULL, note = NULL WHERE position = $third",
		'1:changed_transitions', 2, qr/line \d+: the transition is malformed/, 'audit' ],
	[ 'two rows change places', "UPDATE $t SET position = $second + $third - position WHERE position IN ($second, $third)",
		'1:changed_transitions', 1, qr/^checkpoint 1: changed transitions/ ],
	[ 'a row is moved behind what is sealed', "UPDATE $t SET position = $last_sealed + 1000 WHERE position = $second",
		'1:missing_transitions', 1, qr/^checkpoint 1: missing transitions/ ],
	[ 'a checkpoint is deleted', 'DELETE FROM stripe_lifecycle.audit_checkpoints WHERE number = 2', '2:missing_checkpoint', 1,
		qr/^checkpoint 2: missing checkpoint/ ],
	[ 'the first checkpoint is deleted', 'DELETE FROM stripe_lifecycle.audit_checkpoints WHERE number = 1', '1:missing_checkpoint', 1,
		qr/^checkpoint 1: missing checkpoint/ ],
	[ 'a checkpoint is deleted with its rows', "DELETE FROM $t t USING stripe_lifecycle.audit_checkpoints c
		WHERE c.number = 2 AND t.position > c.from_position AND t.position <= c.to_position;
		DELETE FROM stripe_lifecycle.audit_checkpoints WHERE number = 2", '2:missing_checkpoint', 1,
		qr/^checkpoint 2: missing checkpoint/ ],
	[ 'a root is changed', 'UPDATE stripe_lifecycle.audit_checkpoints SET root = sha256(root) WHERE number = 2',
		'2:bad_signature 2:changed_transitions 3:broken_chain', 1, qr/^checkpoint 2: bad signature/ ],
	[ 'a checkpoint says that another key signed it', "UPDATE stripe_lifecycle.audit_checkpoints
		SET key = '\\x@{[ fingerprint($thief) ]}' WHERE number = 2", '2:unknown_key 3:broken_chain', 1, qr/^checkpoint 2: unknown key/ ],
	[ 'a time is changed', "UPDATE stripe_lifecycle.audit_checkpoints SET sealed_at = sealed_at - interval '1 d' WHERE number = 4",
		'4:bad_signature', 1, qr/^checkpoint 4: bad signature/ ],
	# what nobody can find from within
	[ 'the newest checkpoint is deleted', 'DELETE FROM stripe_lifecycle.audit_checkpoints WHERE number = 4', '', 1,
		qr/^checkpoint 4: the log has it, the export has not/ ],
	[ 'the newest checkpoint is deleted with its rows and payments', "DELETE FROM stripe_lifecycle.payments p USING $t t, stripe_lifecycle.audit_checkpoints c
		WHERE p.id = t.payment_id AND c.number = 4 AND t.position > c.from_position;
		DELETE FROM $t t USING stripe_lifecycle.audit_checkpoints c WHERE c.number = 4 AND t.position > c.from_position;
		DELETE FROM stripe_lifecycle.audit_checkpoints WHERE number = 4", '', 1,
		qr/^checkpoint 4: the log has it, the export has not/ ],
	[ 'everything is deleted', "TRUNCATE stripe_lifecycle.payments, $t, stripe_lifecycle.audit_checkpoints", '', 1,
		qr/^checkpoint 1: the log has it, the export has not.*^checkpoint 4: the log has it/ms ],
);
foreach my $way (@ways)
{
	my ($name, $sql, $expected, $status, $pattern, $other) = @$way;
	my ($found, $exported, $audit) = tamper($sql);

	is($found, $expected, "$name: verify_checkpoints()");
	judged(verify($exported, @all), $status, $pattern, "$name: the verifier");
	cmp_ok($audit, '>', 0, "$name: verify_audit()") if $other;
}

#
# Somebody who writes history anew and seals it, with a key of their own or with the stolen one
#

# Statements that seal what the table holds, all at once from some checkpoint on.
sub reseal
{
	my ($private_key, $from_number, $trail) = @_;
	my $tampered = "SELECT encode(hash, 'hex') AS hash, position,
		to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS at
		FROM $t WHERE position <= $last_sealed ORDER BY position";
	my %c = %{ $server->row("SELECT * FROM stripe_lifecycle.audit_checkpoints WHERE number = $from_number") };
	my $before = $from_number == 1 ? undef : $server->value("SELECT split_part(stripe_lifecycle.checkpoint_line(c), ' signature=', 1)
		FROM stripe_lifecycle.audit_checkpoints c WHERE number = $from_number - 1");
	my @rows = grep { $_->{position} > $c{from_position} } @{ $server->rows($tampered) };
	my @at = sort map { $_->{at} } @rows;
	my $text = checkpoint_text(
		trail => $trail // $c{trail}, number => $from_number, from => $c{from_position}, to => $last_sealed,
		leaves => scalar @rows, first_at => $at[0], last_at => $at[-1], sealed_at => '2026-01-01T00:00:00.000000Z',
		root => merkle_root(map { pack 'H*', $_->{hash} } @rows),
		previous => defined $before ? sha256_hex($before) : '0' x 64, key => fingerprint($private_key));
	my %new = $text =~ / (\w+)=(\S+)/g;

	return "DELETE FROM stripe_lifecycle.audit_checkpoints WHERE number >= $from_number;
		INSERT INTO stripe_lifecycle.audit_checkpoints VALUES ($from_number, '$new{trail}', $new{from}, $new{to}, $new{leaves},
		'$new{first_at}', '$new{last_at}', '$new{sealed_at}', '\\x$new{root}', '\\x$new{previous}', '\\x$new{key}',
		'\\x@{[ sign_text($dir, $private_key, $text) ]}')";
}

sub tamper_and_reseal
{
	my ($sql, @reseal) = @_;

	# what is sealed has to be read in the state it is in then
	$server->sql("BEGIN; ALTER TABLE stripe_lifecycle.payments DISABLE TRIGGER ALL; ALTER TABLE $t DISABLE TRIGGER ALL; $sql");
	my $statements = reseal(@reseal);
	$server->sql('ROLLBACK');
	return tamper("$sql; $statements");
}

my ($found, $exported, $audit) = tamper_and_reseal($change_amount, $thief, 1);
is("$found $audit", '1:unknown_key 0', 'another key: verify_checkpoints() does not know it');
judged(verify($exported, @all), 1, qr/^checkpoint 1: unknown key/, 'another key: neither does the verifier');
judged(verify($exported, @all, '--public-key', "$dir/thief_public_key"), 1, qr/^checkpoint 1: the log has another one of that number/,
	'another key: if it did, the log would know better');

($found, $exported, $audit) = tamper_and_reseal($change_amount, $key, 1);
is("$found $audit", ' 0', 'the stolen key: nobody can tell from within');
judged(verify($exported, @keys, '-'), 0, qr/no log was given/, 'the stolen key: nor from the export alone');
judged(verify($exported, @all), 1, qr/^checkpoint 1: the log has another one of that number.*^checkpoint 2: the log has it/ms,
	'the stolen key: but the log can');

($found, $exported) = tamper_and_reseal("DELETE FROM $t WHERE position = $last_sealed", $key, 4);
is($found, '', 'the newest part sealed anew: nobody can tell from within');
judged(verify($exported, @all), 1, qr/\Acheckpoint 4: the log has another one of that number: the trail was changed/,
	'the newest part sealed anew: the log can');

my $other_trail = '00000000-0000-4000-8000-000000000001';
($found, $exported) = tamper_and_reseal($change_amount, $key, 1, $other_trail);
is($found, '', 'begun anew under another name: nobody can tell from within');
judged(verify($exported, @all), 1, qr/the log has checkpoints of other trails as well/, 'begun anew: the log can');
my $trail = $server->value('SELECT DISTINCT trail FROM stripe_lifecycle.audit_checkpoints');
judged(verify($exported, @all, '--trail', $trail), 1, qr/of another trail than the one that was named/, 'begun anew: or who knows the trail\'s name');

#
# Somebody who alters an export
#

my %caught;
foreach my $format (sort keys %export)
{
	my @lines = split /^/, $export{$format};
	my ($missed, $crashed) = ('', '');
	my $try = sub {
		my ($what, @tampered) = @_;
		my $got = verify(join('', @tampered), @keys, '-');

		$missed .= " $what" if $got->{status} == 0;
		$crashed .= " $what" if $got->{signal} != 0 || $got->{status} > 2;
		$caught{$format}++;
	};

	# each line left out, put in twice, exchanged with the next, cut off after, altered in each of its digits' places
	foreach my $n (0 .. $#lines)
	{
		$try->("without $n", @lines[ grep { $_ != $n } 0 .. $#lines ]);
		$try->("$n twice", @lines[ 0 .. $n, $n .. $#lines ]);
		$try->("$n exchanged", @lines[ 0 .. $n - 1, $n + 1, $n, $n + 2 .. $#lines ]) if $n < $#lines;
		$try->("up to $n", @lines[ 0 .. $n ]) if $n < $#lines;
		my @places;
		push @places, pos($lines[$n]) - 1 while $lines[$n] =~ /[0-9]/g;
		# a position says nothing but in which order transitions were written
		$lines[$n] =~ /"position":\d+|"transition",,\d+/
		  and @places = grep { $_ < $-[0] || $_ >= $+[0] } @places;
		foreach my $place (@places[ grep { $_ % 31 == $n % 31 } 0 .. $#places ])
		{
			my @tampered = @lines;

			substr($tampered[$n], $place, 1) =~ tr/0-9/1-90/;
			$try->("$n altered at $place", @tampered);
		}
	}
	is($missed, '', "$format: every change of an export is found");
	is($crashed, '', "$format: by a clear word");
	cmp_ok($caught{$format}, '>', 200, "$format: of many");
}
judged(verify($export{json} =~ s/"amount":2000/"amount":2001/r, @keys, '-'), 1, qr/position \d+: altered/, 'an altered amount');
judged(verify($export{csv} =~ s/,2000,"eur"/,2001,"eur"/r, @keys, '-'), 1, qr/position \d+: altered/, 'in CSV');

#
# The commands of docs/checkpoints.md give what the page says
#

my $page = slurp_file("$FindBin::RealBin/../../docs/checkpoints.md");
my $script = "cd '$dir'\n" . join '', $page =~ /^```bash\n(.*?)^```$/msg;
my @shown = $page =~ /^```bash\n.*?^```\n\n```\n(.*?)^```$/msg;
my ($said, $complaints) = run_command([ 'bash', '-eu', '-c', $script ]);
is(scalar @shown, 2, 'the page shows what two scripts put out');
is("$said\n", join('', @shown), 'and they do');
my ($line) = $page =~ /^line='(.*)'$/m;
write_secret("$dir/example.log", "LOG:  $line\n", 0644);
judged(verify('', '-k', "$dir/public.pem", '-l', "$dir/example.log"), 0, qr/^1 checkpoints in the log\nOK/, 'the verifier takes its example');
my ($build) = $page =~ /^(cc -O2 .*?)\n```$/ms;
run_log([ 'bash', '-c', "cd '$FindBin::RealBin/../..' && " . $build =~ s/-o \S+/-o '$dir\/built'/r ]);
is((run_command([ "$dir/built", '--version' ]))[0], 'stripe_lifecycle_verify of an unknown version', 'it can be built without PostgreSQL');

#
# Wrong usage
#

judged(verify('', '--help'), 0, qr/^Usage:.*--public-key.*--log.*^Exit status:/ms, '--help');
judged(verify('', '--version'), 0, qr/^stripe_lifecycle_verify \d+\.\d+$/, '--version');
judged(verify('', ()), 2, qr/nothing to check/, 'no arguments');
judged(verify('', '--nonsense'), 2, qr/Try "stripe_lifecycle_verify --help"/, 'an unknown option');
judged(verify('', @keys, "$dir/export.json", "$dir/export.json"), 2, qr/more than one export/, 'two exports');
judged(verify('', @keys, "$dir/not_there"), 2, qr/could not open file/, 'no such file');
judged(verify('', '-k', "$dir/not_there", '-'), 2, qr/could not open file/, 'no such key');
judged(verify('', '-k', "$dir/checkpoint_key", '-'), 2, qr/holds a private key/, 'a private key');
judged(verify('', '-k', $log, '-'), 2, qr/holds no key in PEM/, 'what is no key');
judged(verify('', @keys, '-l', '-', '-'), 2, qr/only once/, 'standard input twice');
judged(verify('', @keys, '-l', $dir, '-'), 2, qr/could not/, 'a folder for a log');
judged(verify('hello', @keys, '-'), 2, qr/^stripe_lifecycle_verify: -, line 1: it is no export/, 'what is no export');
judged(verify($export{json}, @keys, '-t', 'x', '-'), 2, qr/is no trail/, 'what is no trail');
judged(verify($export{json}, @keys, '-t', $trail, '-'), 0, qr/^OK$/m, 'the right trail');
judged(verify($export{json}, '-'), 1, qr/^checkpoint 1: unknown key/, 'no key');
judged(verify($export{json}, @keys, '-l', "$dir/public_key", '-'), 1, qr/the log has no checkpoint/, 'a log without checkpoints');

$server->stop;
done_testing();
