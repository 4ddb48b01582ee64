# The worker seals the audit trail: completely, whoever commits when; in time; in signed checkpoints
# that anybody can check with openssl; and in nobody's way.

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256_hex);
use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SealedTrail;
use StripeLifecycle;
use Test::More;
use Time::HiRes qw(sleep time);

my $stripe = StripeLifecycle::StandIn->new(seed => 40);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => "stripe_lifecycle.worker_linger = 0\nmax_prepared_transactions = 5\n");
my $key = make_key();
my $key_file = "$server->{dir}/checkpoint_key";

write_secret($key_file, $key);

sub pay
{
	my ($session) = @_;
	my $sql = $server->create_payment_sql;

	return $server->sql($sql) unless $session;
	my ($id, $complaints) = $session->run($sql);
	die $complaints if $complaints =~ /^ERROR/m;
	return $id;
}

# Transitions at positions that no checkpoint covers.
sub unsealed
{
	return $server->value('SELECT count(*) FROM stripe_lifecycle.payment_transitions
		 WHERE position > (SELECT coalesce(max(to_position), 0)
			FROM stripe_lifecycle.audit_checkpoints)');
}

sub all_sealed
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	eventually(\&unsealed, 0, "$name: everything is sealed");
	return is_sound($name);
}

# What the extension itself says, and that each transition is in one checkpoint.
sub is_sound
{
	my ($name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($server->value('SELECT string_agg(v::text, E\'\n\')
			FROM stripe_lifecycle.verify_checkpoints() v', $database),
		'', "$name: verify_checkpoints() finds nothing");
	return is( $server->value('SELECT sum(leaves) FROM stripe_lifecycle.audit_checkpoints', $database),
		$server->value('SELECT count(*) FROM stripe_lifecycle.payment_transitions
			 WHERE position <= (SELECT max(to_position) FROM stripe_lifecycle.audit_checkpoints)', $database),
		"$name: every transition is in one checkpoint");
}

sub health
{
	my ($database) = @_;

	return $server->row(
		"SELECT * FROM stripe_lifecycle.health() WHERE check_name = 'checkpoints'", $database);
}

sub newest
{
	return $server->value('SELECT coalesce(max(number), 0) FROM stripe_lifecycle.audit_checkpoints');
}

# The worker has looked once more at whether it can seal, and could not: it says so by being there,
# since it has nothing else to stay for.
sub looks_in_vain
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $look = q{SELECT coalesce(max(state_change)::text, '') FROM pg_stat_activity
		WHERE backend_type = 'stripe_lifecycle worker' AND datname = 'postgres'
		  AND query = 'stripe_lifecycle: sealing the audit trail'};

	for my $n (1 .. 2)
	{
		my $before = $server->value($look);

		eventually(sub { $server->value($look) },
			sub { $_[0] ne '' && $_[0] ne $before }, "$name: the worker looks, $n");
	}
	return cmp_ok(unsealed(), '>', 0, "$name: and does not seal");
}

#
# Off, and on
#

my @first = map { pay() } 1 .. 3;
$server->intent_known($_) foreach @first;
is(newest(), 0, 'without a key nothing is sealed');
like(health()->{status} . ' ' . health()->{detail}, qr/^ok off/, 'and that is said');

my $length = $server->log_length;
$server->configure("stripe_lifecycle.checkpoint_key_file = '$key_file'",
	'stripe_lifecycle.checkpoint_interval = 1s');
all_sealed('with a key');
is(newest(), 1, 'in one checkpoint');
is(health()->{status}, 'ok', 'health() is content');

#
# What it says, without the extension
#

sub check_by_hand
{
	my ($number) = @_;
	my ($text, $signature) = split / signature=/, $server->value(
		"SELECT stripe_lifecycle.checkpoint_line(c) FROM stripe_lifecycle.audit_checkpoints c
		  WHERE number = $number");
	my %c = $text =~ / (\w+)=(\S+)/g;
	my ($before) = $number == 1 ? '' : split / signature=/, $server->value(
		'SELECT stripe_lifecycle.checkpoint_line(c) FROM stripe_lifecycle.audit_checkpoints c
		  WHERE number = ' . ($number - 1));
	my @hashes = map { pack 'H*', $_->{hash} } @{ $server->rows(
			"SELECT encode(hash, 'hex') AS hash FROM stripe_lifecycle.payment_transitions
			  WHERE position > $c{from} AND position <= $c{to} ORDER BY position") };

	is(checkpoint_text(%c), $text, "checkpoint $number: its text");
	is($c{root}, merkle_root(@hashes), "checkpoint $number: its root");
	is($c{leaves}, scalar @hashes, "checkpoint $number: its leaves");
	is($c{previous}, $number == 1 ? '0' x 64 : sha256_hex($before),
		"checkpoint $number: the hash before");
	is($c{key}, fingerprint($key), "checkpoint $number: its key");
	ok(signature_is_good($server->{dir}, public_key($key), $text, $signature),
		"checkpoint $number: openssl finds its signature good");
	ok(!signature_is_good($server->{dir}, public_key($key), "$text.", $signature),
		"checkpoint $number: and not for another text");
	like($server->log_text($length), qr/LOG:  \Q$text signature=$signature\E$/m,
		"checkpoint $number: its line is in the log");
	return;
}

check_by_hand(1);
pay() foreach 1 .. 5;
all_sealed('five more');
check_by_hand(newest());
eventually(sub { $server->workers }, 0, 'the worker has nothing to stay for');

my $before = newest();
my $sealed_at = $server->value('SELECT max(sealed_at) FROM stripe_lifecycle.audit_checkpoints');
eventually(sub { $server->value("SELECT clock_timestamp() > '$sealed_at'::timestamptz + interval '2.5 s'") },
	't', 'intervals pass');
is(newest(), $before, 'in which nothing new means no checkpoint');

#
# Transactions that end late
#

my $slow = StripeLifecycle::Session->new($server->node, 'postgres');
$slow->run('BEGIN');
pay($slow);
my $started = time;
pay() foreach 1 .. 3;
looks_in_vain('an open transaction');
like($server->ingest(map { ($_, sign($_)) }
		'{"id":"evt_1","object":"event","type":"x.y","created":1,"livemode":false,"data":{"object":{"id":"x_1","object":"x"}}}'),
	qr/ignored/, 'webhooks are taken in meanwhile');
$slow->run('COMMIT');
all_sealed('it has committed');
is( $server->value('SELECT count(*) FROM stripe_lifecycle.payment_transitions a
		JOIN stripe_lifecycle.payment_transitions b ON b.position = a.position + 1 AND b.at < a.at'),
	0, 'positions are in the order of writing');

$slow->run('BEGIN');
pay($slow);
pay($slow);
pay();
looks_in_vain('a transaction that will be rolled back');
$slow->run('ROLLBACK');
all_sealed('it was rolled back');

# Its session's transaction ends with PREPARE, and what it wrote is still not decided.
$slow->run('BEGIN');
pay($slow);
pay();
looks_in_vain('before PREPARE TRANSACTION');
$slow->run(q{PREPARE TRANSACTION 'late'});
looks_in_vain('after PREPARE TRANSACTION');
$server->sql(q{COMMIT PREPARED 'late'});
all_sealed('COMMIT PREPARED');

# Others need not be waited for: one that only reads, and one that writes elsewhere
$server->sql('CREATE TABLE elsewhere (a int)');
$slow->run('BEGIN; INSERT INTO elsewhere VALUES (1); SELECT count(*) FROM stripe_lifecycle.payment_transitions');
pay();
all_sealed('other transactions are open');
$slow->run('COMMIT');

#
# Sealing is in nobody's way
#

$server->sql(q{
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
	$$ BEGIN PERFORM pg_sleep(1000); RETURN NEW; END $$;
CREATE TRIGGER dawdle BEFORE INSERT ON stripe_lifecycle.audit_checkpoints
	FOR EACH ROW EXECUTE FUNCTION dawdle()});
pay();
my $asleep = q{SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'
	AND backend_type = 'stripe_lifecycle worker'};
my $pid = eventually(sub { $server->value($asleep) }, qr/^\d+$/, 'a checkpoint is being written');
my $paid = pay();
my $event = 'evt_2';
like($server->ingest(map { ($_, sign($_)) }
		qq({"id":"$event","object":"event","type":"payment_intent.processing","created":1,"livemode":false,
			"data":{"object":{"id":"pi_x","object":"payment_intent","amount":2000,"currency":"eur","status":"processing",
			"livemode":false,"metadata":{"stripe_lifecycle_payment_id":"$paid"}}}})),
	qr/applied/, 'payments move meanwhile');
is($server->value($asleep), $pid, 'while it is being written');
$server->sql('SELECT pg_cancel_backend(' . $pid . ')');
$server->sql('DROP TRIGGER dawdle ON stripe_lifecycle.audit_checkpoints');
$server->sql('DROP FUNCTION dawdle()');
all_sealed('a sealing that was canceled');

$slow->run('BEGIN; LOCK stripe_lifecycle.audit_checkpoints IN SHARE MODE');
$paid = pay();
$server->intent_known($paid, 'a checkpoint that cannot be written keeps no payment from being sent');
cmp_ok(unsealed(), '>', 0, 'and is not written');
$slow->run('COMMIT');
all_sealed('the lock is gone');

#
# Under load, with transactions that commit in another order than they began
#

my $load = "$server->{dir}/load.sql";
write_secret($load, q{
\set pause random(0, 30)
\set keep random(1, 10)
\set k random(1, 1000000000000)
BEGIN;
SELECT stripe_lifecycle.create_payment(100, 'eur', 'load_' || :k || '_' || :client_id);
SELECT pg_sleep(:pause * 0.001);
\if :keep > 2
COMMIT;
\else
ROLLBACK;
\endif
}, 0644);
$before = newest();
$server->sql("SELECT stripe_lifecycle.pause_worker('the stand-in is slow')");
$server->node->command_ok(
	[ 'pgbench', '-n', '-c', '8', '-j', '2', '-T', '4', '-f', $load, $server->node->connstr('postgres') ],
	'eight sessions create payments');
all_sealed('under load');
cmp_ok(newest(), '>=', $before + 2, 'sealed while it went on, though the worker is paused');
check_by_hand(newest());
$server->sql('SELECT stripe_lifecycle.resume_worker()');

#
# Many at once
#

$server->sql(q{
BEGIN;
ALTER TABLE stripe_lifecycle.payment_transitions DISABLE TRIGGER ALL;
INSERT INTO stripe_lifecycle.payment_transitions
	(payment_id, seq, to_state, at, source, role, amount, currency, hash)
	SELECT gen_random_uuid(), 1, 'created', clock_timestamp(), 'create_payment', 'x', 1, 'usd', sha256(i::text::bytea)
	  FROM generate_series(1, 25000) i;
ALTER TABLE stripe_lifecycle.payment_transitions ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.payment_transitions ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;
COMMIT});
all_sealed('25,000 transitions');
is($server->value('SELECT max(leaves) FROM stripe_lifecycle.audit_checkpoints'),
	10000, 'no checkpoint has more than it may have');

# a gap of any width in the positions
$server->sql("SELECT setval('stripe_lifecycle.payment_transitions_position_seq', 1000000000000)");
pay();
all_sealed('after a gap');

#
# Keys
#

$length = $server->log_length;
chmod 0644, $key_file;
$paid = pay();
eventually(sub { $server->log_text($length) }, qr/WARNING:  stripe_lifecycle cannot seal the audit trail/,
	'a key file that others can read');
like($server->log_text($length), qr/DETAIL:  File "\Q$key_file\E" may be accessed by others/, 'and why');
is(health()->{status}, 'critical', 'health() says so, too');
$server->intent_known($paid, 'payments are sent all the same');
foreach my $bad (
	[ 'an empty file', '', qr/holds no key/ ],
	[ 'a public key', public_key($key), qr/holds no private key/ ],
	[ 'a key of another kind', SealedTrail::openssl('', qw(genpkey -algorithm x25519)), qr/another kind than Ed25519/ ],
	[ 'an encrypted key', SealedTrail::openssl($key, qw(pkey -aes128 -passout pass:x)), qr/an encrypted private key/ ],
	[ 'two private keys', $key . make_key(), qr/more than one private key/ ])
{
	write_secret($key_file, $bad->[1]);
	like(health()->{detail}, $bad->[2], "key file: $bad->[0]");
}
is(() = $server->log_text($length) =~ /cannot seal/g, 1, 'the log was told once');
my $secret = (split /\n/, $key)[1];
unlike($server->log_text($length) . join('', map { $_ // '' } values %{ health() }),
	qr/PRIVATE KEY|\Q$secret\E/, 'nothing of a key is shown');

# another key, the old one's public half beside it
my $new_key = make_key();
write_secret($key_file, $new_key . public_key($key));
$server->reload;
all_sealed('with a new key');
is($server->value("SELECT encode(key, 'hex') FROM stripe_lifecycle.audit_checkpoints ORDER BY number DESC LIMIT 1"),
	fingerprint($new_key), 'it is the new one that signs');
write_secret($key_file, $new_key);
like($server->value('SELECT v FROM stripe_lifecycle.verify_checkpoints() v'),
	qr/^\(1,"unknown key","no public key is known for fingerprint @{[ fingerprint($key) ]}/,
	'without the old one its checkpoints cannot be checked');
is($server->value('SELECT count(*) FROM stripe_lifecycle.verify_checkpoints(public_keys => '
			. quote(public_key($key)) . ')'),
	0, 'unless it is given');
is($server->error("SELECT stripe_lifecycle.verify_checkpoints(public_keys => 'x')")->{sqlstate},
	'SL015', 'what is no key is refused');
write_secret($key_file, $new_key . public_key($key));
$key = $new_key;

#
# Crash, copy, dump
#

pay();
$server->disconnect;
$server->node->stop('immediate');
$server->start;
pay();
all_sealed('after a crash');

$slow->close;
$server->configure('stripe_lifecycle.checkpoint_interval = 0');
pay();
$server->disconnect;
eventually(sub { $server->node->psql('template1', 'CREATE DATABASE copied TEMPLATE postgres') }, 0, 'a copy by template');
my $dump = "$server->{dir}/dump.sql";
$server->node->command_ok([ 'pg_dump', '-f', $dump, $server->node->connstr('postgres') ], 'a dump');
$server->sql('CREATE DATABASE restored TEMPLATE template0');
$server->node->command_ok(
	[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $server->node->connstr('restored') ],
	'comes back');
my $sum = q{SELECT md5(string_agg(stripe_lifecycle.checkpoint_line(c), ' ' ORDER BY number)) FROM stripe_lifecycle.audit_checkpoints c};
is($server->value($sum, 'restored'), $server->value($sum), 'with its checkpoints');
is($server->value('SELECT last_value FROM stripe_lifecycle.payment_transitions_position_seq', 'restored'),
	$server->value('SELECT last_value FROM stripe_lifecycle.payment_transitions_position_seq'),
	'and where positions go on');
$before = newest();
$server->configure('stripe_lifecycle.checkpoint_interval = 1s');
all_sealed('the original');
cmp_ok(newest(), '>', $before, 'goes on');
foreach my $copy (qw(copied restored))
{
	is_sound("$copy", $copy);
	$server->sql($server->create_payment_sql, $copy) if $copy eq 'copied';
	eventually(sub { $server->value('SELECT paused FROM stripe_lifecycle.worker_state', $copy) }, 't',
		"$copy: is paused");
	is($server->value('SELECT max(number) FROM stripe_lifecycle.audit_checkpoints', $copy),
		$before, "$copy: seals nothing");
	$server->sql('SELECT stripe_lifecycle.resume_worker()', $copy);
	eventually(sub { $server->value('SELECT max(number) FROM stripe_lifecycle.audit_checkpoints', $copy) },
		$before + 1, "$copy: after resume_worker() it does");
	is_sound("$copy, resumed", $copy);
}

# A replica that takes over has the rows of its original, but not the state of its sequences.
$server->sql("SELECT setval('stripe_lifecycle.payment_transitions_position_seq', 5)");
$length = $server->log_length;
$server->reload;
eventually(sub { $server->log_text($length) }, qr/their sequence was set back/, 'positions that begin anew are noticed');
$server->sql('SELECT stripe_lifecycle.resume_worker()');
pay();
all_sealed('resume_worker() sets them right');

#
# Where there are no payments nobody comes to look
#

$server->sql('CREATE DATABASE idle');
$server->sql('CREATE EXTENSION stripe_lifecycle', 'idle');
$server->reload;
pay();
all_sealed('one database seals');
is($server->workers('idle'), 0, 'an idle one has no worker');

$server->stop;
unlike($server->log_text, qr/PANIC|TRAP|segfault|terminated by signal 11/, 'no process crashed');
done_testing();
