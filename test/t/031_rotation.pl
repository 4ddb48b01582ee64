
# Secrets change while everything runs: what secrets_status() says of them, and that a rotation loses
# nothing. Webhooks are delivered all the time, in several sessions, signed with what Stripe has at that
# moment; none may be refused. Calls to Stripe go on with the one key or the other, and all of them end.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";

use Digest::SHA qw(sha256_hex);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use SealedTrail ();
use StripeLifecycle;

# as long as Stripe's
my ($OLD, $NEW) = map { "whsec_tap_${_}_0123456789abcdefghijklmnop" } qw(old new);

my $stripe = StripeLifecycle::StandIn->new(seed => 31, latency_ms => 20);
my $server = StripeLifecycle->new('main', $stripe);
my $file = $server->{webhook_secret_file};
my $key_file = $server->{api_key_file};

# Replaces a file of secrets as one should: another one takes its place.
sub put_in_place
{
	my ($path, $content) = @_;

	write_secret("$path.next", $content);
	rename "$path.next", $path or die "rename: $!";
	return;
}

#
# What may be seen of secrets
#

sub status
{
	my ($kind) = @_;

	return $server->rows(
		"SELECT kind, label, fingerprint, mode, problems, age BETWEEN '0' AND '1 hour' AND modified_at <= now() AS young
		   FROM stripe_lifecycle.secrets_status() WHERE kind = '$kind'");
}

sub fingerprint { return substr sha256_hex($_[0]), 0, 16; }

put_in_place($file, "# both\nold $OLD\n$NEW\n");
$server->reload;
is_deeply(
	status('webhook'),
	[
		map {
			{
				kind => 'webhook', label => $_->[0], fingerprint => fingerprint($_->[1]),
				mode => undef, problems => undef, young => JSON::PP::true
			}
		} [ old => $OLD ], [ undef, $NEW ]
	],
	'two webhook secrets: labels, fingerprints, no problem');
foreach my $case (
	[ 'sk_test_tap_key', 'test', undef ],
	[ 'rk_live_tap_key', 'live', undef ],
	[ 'sk_tap_key', undef, qr/^Its prefix does not tell/ ])
{
	my ($key, $mode, $problem) = @$case;
	my $row;

	put_in_place($key_file, "$key\n");
	$server->reload;
	$row = status('api_key')->[0];
	is($row->{fingerprint}, fingerprint($key), "$key: its fingerprint");
	is($row->{mode}, $mode, "$key: its mode");
	ok(defined $problem ? $row->{problems} =~ $problem : !defined $row->{problems}, "$key: its problem");
}
put_in_place($key_file, "$API_KEY\n");
$server->reload;

# A test: the one row of a kind has this problem, and shows neither path nor secret.
sub has_problem
{
	my ($kind, $problem, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @rows = @{ status($kind) };

	like($rows[0]{problems} // '', $problem, "problem: $name");
	unlike(join(' ', map { $_ // '' } map { values %$_ } @rows) =~ s/\b(api_key|webhook|checkpoint)\b//gr,
		qr/\Q$server->{dir}\E|\Q@{[$server->node->data_dir]}\E|tap_/, "problem: $name: no path, no secret");
	return;
}

my @secrets = (
	# content, mode, problem, name
	[ "a $NEW\nb $NEW\n", 0600, qr/^The same secret is in another line as well\.$/, 'twice the same' ],
	[ "whsec_tap_short\n", 0600, qr/^It is shorter than the secrets that Stripe issues/, 'short' ],
	[ substr($NEW, 0, 30), 0600, qr/^It is shorter/, 'torn off' ],
	[ "$NEW\n", 0644, qr/^The file may be accessed by others/, 'open to all' ],
	[ "x\n", 0600, qr/^The file is malformed in line 1\.$/, 'malformed' ],
	[ '', 0600, qr/^The file holds no secret\.$/, 'empty' ]);
foreach my $case (@secrets)
{
	my ($content, $mode, $problem, $name) = @$case;

	write_secret($file, $content, $mode);
	$server->reload;
	has_problem('webhook', $problem, $name);
}
write_secret($key_file, "sk_test_tap\n", 0640);
has_problem('api_key', qr/^The file may be accessed by others/, 'API key open to its group');
unlink $key_file;
has_problem('api_key', qr/^The file could not be opened: No such file/, 'no API key');
put_in_place($key_file, "$API_KEY\n");

put_in_place($file, "$OLD\n");
has_problem('webhook', qr/^The file was changed after the latest reload/, 'not yet reloaded');
$server->reload;
is(status('webhook')->[0]{problems}, undef, 'and then reloaded');
chmod 0777, $server->{dir} or die "chmod: $!";
has_problem('webhook', qr/^Others may write to the file's directory/, 'an open directory');
has_problem('api_key', qr/Others may write to the file's directory/, 'an open directory with the API key in it');
chmod 0777 | 01000, $server->{dir} or die "chmod: $!";
is(status('webhook')->[0]{problems}, undef, 'where others may not replace the file, as in /tmp');
chmod 0700, $server->{dir} or die "chmod: $!";

# the key for checkpoints, which is not kept, so that it needs no reload
my $checkpoint_file = "$server->{dir}/checkpoint_key";
my $checkpoint_key = SealedTrail::make_key();

is_deeply(status('checkpoint'), [], 'no row for checkpoints that are off');
$server->configure("stripe_lifecycle.checkpoint_key_file = '$checkpoint_file'");
has_problem('checkpoint', qr/^The file could not be opened: No such file/, 'no key for checkpoints');
foreach my $key ($checkpoint_key, SealedTrail::make_key() . SealedTrail::public_key($checkpoint_key))
{
	put_in_place($checkpoint_file, $key);
	is_deeply(
		status('checkpoint'),
		[
			{
				kind => 'checkpoint', label => undef, fingerprint => substr(SealedTrail::fingerprint($key), 0, 16),
				mode => undef, problems => undef, young => JSON::PP::true
			}
		],
		'a key for checkpoints, by its public half');
}
foreach my $case (
	[ SealedTrail::public_key($checkpoint_key), 0600, qr/^The file holds no private key to sign with\.$/, 'a public key for checkpoints' ],
	[ $checkpoint_key, 0604, qr/^The file may be accessed by others/, 'an open file with the key for checkpoints' ],
	[ "x\n", 0600, qr/^The file holds no key in PEM\.$/, 'no key at all' ])
{
	write_secret($checkpoint_file, $case->[0], $case->[1]);
	has_problem('checkpoint', $case->[2], $case->[3]);
}
put_in_place($checkpoint_file, $checkpoint_key);
chmod 0777, $server->{dir} or die "chmod: $!";
has_problem('checkpoint', qr/^Others may write to the file's directory/, 'an open directory with the key for checkpoints in it');
chmod 0700, $server->{dir} or die "chmod: $!";
my ($secret) = (split /\n/, $checkpoint_key)[1];
unlike(join(' ', map { $_ // '' } map { values %$_ } @{ status('checkpoint') }), qr/\Q$secret\E/, 'it is not shown');

put_in_place($file, join '', map { "l$_ ${NEW}_$_\n" } 1 .. 16);
is(scalar @{ status('webhook') }, 16, 'as many as there can be');
unlike(join(' ', map { $_ // '' } map { values %$_ } @{ status('webhook') }), qr/tap_/, 'and none is shown');

#
# A rotation, while webhooks are delivered
#

my $dir = $server->{dir};
my $SESSIONS = 4;

# What Stripe signs with, and whether it goes on.
sub stripe_signs_with
{
	my ($secret) = @_;

	put_in_place("$dir/signs_with", $secret);
	return;
}

# A session that hands in deliveries until told to end: for each a line with what it was signed with,
# what became of it, and since when the session has had its configuration. Every other session does so in
# transactions of ten.
sub deliver
{
	my ($number) = @_;
	my $session = StripeLifecycle::Session->new($server->node, 'postgres');
	my $n = 0;

	open my $log, '>', "$dir/session.$number" or die "could not write: $!";
	$log->autoflush;
	while ((my $secret = slurp_file("$dir/signs_with")) ne 'end')
	{
		my $id = "evt_tap_${number}_" . ++$n;
		my $body = qq({"id":"$id","object":"event","type":"tap.rotation","created":1700000000,"livemode":false,)
		  . qq("data":{"object":{"id":"obj_1","object":"tap"}}});
		my ($output, $complaints) = $session->run(
			($number % 2 && $n % 10 == 1 ? 'BEGIN; ' : '')
			. $server->ingest_sql($body, sign($body, $secret)));
		my ($loaded) = $session->run("SELECT extract(epoch FROM pg_conf_load_time())");

		$session->run('COMMIT') if $number % 2 && $n % 10 == 0;
		print $log join(' ', $id, $secret, $complaints =~ /ERROR:  (\w{5})/ ? $1 : $output, $loaded) . "\n";
	}
	$session->run('COMMIT') if $number % 2;
	$session->close;
	return;
}

# What all sessions have noted so far, each a list of rows.
sub noted
{
	return map {
		[ map { [ split / / ] } grep { /\n\z/ } -e "$dir/session.$_" ? split /^/, slurp_file("$dir/session.$_") : () ]
	} 1 .. $SESSIONS;
}

# Waits until every session has handed in something that this is true of, as the last thing it did.
sub all_sessions
{
	my ($check, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return eventually(sub { scalar grep { @$_ && $check->($_->[-1]) } noted() }, $SESSIONS, $name);
}

# Reloads, and waits until all sessions know.
sub reload_everywhere
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $time = $server->value('SELECT extract(epoch FROM clock_timestamp())');

	$server->reload;
	return all_sessions(sub { $_[0][3] > $time }, $name);
}

put_in_place($file, "old $OLD\n");
$server->reload;
stripe_signs_with($OLD);
my @sessions = map { my $number = $_; StripeLifecycle::spawn(sub { deliver($number) }) } 1 .. $SESSIONS;
all_sessions(sub { $_[0][1] eq $OLD }, 'deliveries are signed with the old secret');

put_in_place($file, "old $OLD\nnew $NEW\n");
reload_everywhere('both secrets are active');
stripe_signs_with($NEW);
all_sessions(sub { $_[0][1] eq $NEW }, 'deliveries are signed with the new secret');

# Back and forth: a file that is replaced by another is never seen in pieces.
for my $i (1 .. 20)
{
	put_in_place($file, $i % 2 ? "new $NEW\n" : "old $OLD\n# again\nnew $NEW\n");
	$server->reload;
}
put_in_place($file, "new $NEW\n");
reload_everywhere('the old secret has had its time');
my $so_far = () = map { @$_ } noted();
eventually(sub { scalar(() = map { @$_ } noted()) }, sub { $_[0] > $so_far + 40 }, 'deliveries go on');
stripe_signs_with('end');
is(StripeLifecycle::finish($_), 0, 'a session ends well') foreach @sessions;

my @deliveries = map { @$_ } noted();
is_deeply([ grep { $_->[2] ne 'ignored' } @deliveries ], [], 'of ' . @deliveries . ' deliveries none was refused');
is_deeply(
	$server->rows(q{SELECT secret_label, count(*) FROM stripe_lifecycle.webhook_events
		WHERE type = 'tap.rotation' GROUP BY 1 ORDER BY 1}),
	[
		map {
			my $secret = $_->[1];
			{ secret_label => $_->[0], count => scalar grep { $_->[1] eq $secret } @deliveries }
		} [ new => $NEW ], [ old => $OLD ]
	],
	'each is there once, with the label of the secret it was signed with');

#
# In the middle of a transaction
#

my $n = 0;

sub outcome
{
	my ($secret) = @_;
	my $body = sprintf '{"id":"evt_tap_one_%d","object":"event","type":"tap.one","created":1700000000,'
	  . '"livemode":false,"data":{"object":{"id":"obj_1","object":"tap"}}}', ++$n;
	my $error = $server->error("SAVEPOINT s; " . $server->ingest_sql($body, sign($body, $secret)));

	$server->sql('ROLLBACK TO s') if $error->{sqlstate} ne '';
	return $error->{sqlstate} || $error->{output};
}

# A reload that the session at hand takes note of; what it was told in between does not matter.
sub change
{
	my ($content) = @_;
	my $before = $server->value('SELECT pg_conf_load_time()');

	put_in_place($file, $content);
	$server->node->reload;
	sleep 0.01 while $server->value('SELECT pg_conf_load_time()') eq $before;
	return;
}

change("$OLD\n");
$server->sql('BEGIN');
is(outcome($OLD), 'ignored', 'in a transaction: the old secret');
is(outcome($NEW), 'SL021', 'in a transaction: not the new one yet');
change("$OLD\n$NEW\n");
is(outcome($OLD), 'ignored', 'in the same transaction: the old secret still');
is(outcome($NEW), 'ignored', 'in the same transaction: the new one too');
change("$NEW\n");
is(outcome($OLD), 'SL021', 'in the same transaction: no longer the old one');
is(outcome($NEW), 'ignored', 'in the same transaction: the new one');
$server->sql('COMMIT');
is($server->value(q{SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE type = 'tap.one'}), 4, 'all of it is there');

#
# A file that is written in place can be read half written: refused as long as it is, and no longer
#

foreach my $case (
	[ '', 'SL020', 'nothing yet' ],
	[ substr("new $NEW\n", 0, 9), 'SL020', 'the label and a piece of the prefix' ],
	[ substr("new $NEW\n", 0, 25), 'SL021', 'a piece of the secret' ],
	[ "new $NEW", 'ignored', 'all but the line end' ],
	[ "new $NEW\nol", 'SL020', 'a piece of the next line' ],
	[ "new $NEW\nold $OLD\n", 'ignored', 'all of it' ])
{
	my ($content, $outcome, $name) = @$case;

	open my $handle, '>', $file or die "could not write: $!";
	print $handle $content;
	close $handle or die "could not write: $!";
	$server->reload;
	$server->sql('BEGIN');
	is(outcome($NEW), $outcome, "half written: $name");
	$server->sql('COMMIT');
}

#
# The API key, while calls to Stripe go on
#

my ($FIRST, $SECOND) = ('sk_test_tap_first', 'rk_test_tap_second');
my @payments;

# Keys of the calls that Stripe has seen since there were so many.
sub keys_seen
{
	my ($since) = @_;
	my @requests = @{ $stripe->ledger->{requests} };

	return map { $_->{authorization} =~ s/^Bearer //r } @requests[ $since .. $#requests ];
}

put_in_place($key_file, "$FIRST\n");
$server->reload;
push @payments, map { $server->create_payment } 1 .. 20;
eventually(sub { scalar grep { $_ eq $FIRST } keys_seen(0) }, sub { $_[0] >= 3 }, 'calls go out with the first key');
put_in_place($key_file, "$SECOND\n");
$server->reload;
push @payments, map { $server->create_payment } 1 .. 20;
eventually(sub { scalar grep { $_ eq $SECOND } keys_seen(0) }, sub { $_[0] >= 3 }, 'and then with the second');
my $seen = $stripe->count('requests');
push @payments, map { $server->create_payment } 1 .. 5;
$server->intent_known($_, 'every payment is sent') foreach @payments;
is($server->value(q{SELECT count(*) FROM stripe_lifecycle.api_attempts WHERE result <> 'succeeded'}), 0, 'no call failed');
is($stripe->count('requests'), scalar @payments, 'and none was made twice');
my $late = grep { $_ eq $FIRST } keys_seen($seen);
is($late, 0, 'the first key is not used again');

$server->stop;
unlike($server->log_text, qr/$OLD|$NEW|$FIRST|$SECOND/, 'no secret is anywhere in the log');
done_testing();
