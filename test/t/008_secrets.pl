
# The files of secrets: which are accepted, which are refused and how the
# server says so. No message to anybody ever shows what is in them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;

use StripeLifecycle;

my $SECRET = 'whsec_tap_first';
my $NEXT = 'whsec_tap_second';

my $stripe = StripeLifecycle::StandIn->new(seed => 8, webhook_secret => $SECRET);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
stripe_lifecycle.retry_base_delay = 50
stripe_lifecycle.worker_linger = 100
});
my $data = $server->node->data_dir;
my $n = 0;

# A delivery that nobody has seen yet, signed with this secret.
sub delivery
{
	my ($secret) = @_;
	my $body = sprintf '{"id":"evt_tap_%d","object":"event","type":"tap.%d",'
	  . '"created":1700000000,"livemode":false,'
	  . '"data":{"object":{"id":"obj_1","object":"tap"}}}', ++$n, $n;

	return ($body, sign($body, $secret));
}

# Hands in a delivery signed with this secret: the label that is kept with it,
# or the error's SQLSTATE.
sub label_of
{
	my ($secret) = @_;
	my $error = $server->error($server->ingest_sql(delivery($secret)));

	return $error->{sqlstate} if $error->{sqlstate} ne '';
	return $server->value(
		"SELECT coalesce(secret_label, 'none') FROM stripe_lifecycle.webhook_events
		  WHERE event_id = 'evt_tap_$n'");
}

# Uses another path for a file of secrets.
sub use_file
{
	my ($kind, $path) = @_;

	$server->configure("stripe_lifecycle.$kind = '$path'");
	return;
}

#
# Webhook secrets that are accepted
#

my $file = $server->{webhook_secret_file};
my @good = (
	# content, mode, label kept, name
	[ $SECRET, 0600, 'none', 'one secret without a line end' ],
	[ "$SECRET\n", 0400, 'none', 'mode 0400' ],
	[ "$SECRET\r\n", 0600, 'none', 'CRLF' ],
	[ "  \t$SECRET \t \n", 0600, 'none', 'blanks around it' ],
	[ "shop $SECRET\n", 0600, 'shop', 'a label' ],
	[ "shop\t \t$SECRET\r\n", 0600, 'shop', 'a label and a tab' ],
	[ "# $NEXT\n\n \n#\nx $SECRET", 0600, 'x', 'comments and empty lines' ],
	[ "a $NEXT\nb $SECRET\n", 0600, 'b', 'the second of two' ],
	[ 'l' x 63 . " $SECRET", 0600, 'l' x 63, 'the longest label' ],
	[
		join("\n", map { "l$_ whsec_tap_$_" } 1 .. 15) . "\nlast $SECRET",
		0600, 'last', 'sixteen secrets'
	]);
foreach my $case (@good)
{
	my ($content, $mode, $label, $name) = @$case;

	write_secret($file, $content, $mode);
	$server->reload;
	is(label_of($SECRET), $label, "good: $name");
}

symlink $file, "$server->{dir}/link" or die "symlink: $!";
use_file('webhook_secret_file', "$server->{dir}/link");
is(label_of($SECRET), 'last', 'good: a symbolic link');
use_file('webhook_secret_file', $file);

#
# Rotation
#

write_secret($file, "old $SECRET\nnew $NEXT\n");
$server->reload;
is(label_of($SECRET), 'old', 'rotation: the old secret');
is(label_of($NEXT), 'new', 'rotation: and the new one');
is(label_of('whsec_tap_third'), 'SL021', 'rotation: but no other');
is(label_of("$SECRET "), 'SL021', 'a secret is taken whole');
is(label_of(substr $SECRET, 6), 'SL021', 'with its prefix');
write_secret($file, "new $NEXT\n");
$server->reload;
is(label_of($SECRET), 'SL021', 'rotation: then the old one has had its time');
is(label_of($NEXT), 'new', 'rotation: and the new one goes on');

#
# Webhook secrets that are refused
#

# A test: with the file like this, webhooks are refused; the log says why, and
# nobody says more than that.
sub is_unusable
{
	my ($why, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $length = $server->log_length;
	my $error = $server->error($server->ingest_sql(delivery($NEXT)));
	my $log = $server->log_text($length);

	fails_with($error, 'SL020', qr/no webhook signing secret is available/,
		"bad: $name: webhooks are refused");
	like($log, $why, "bad: $name: the log says why");
	unlike($log . $error->{text},
		qr/whsec_|tap_second|STATEMENT/, "bad: $name: and shows no secret");
	unlike($error->{text}, qr/\Q$server->{dir}\E|\Q$data\E/,
		"bad: $name: nor the path to the client");
	return;
}

my @bad = (
	# content, mode, what the log says, name
	[ "$NEXT\n", 0640, qr/may be accessed by others/, 'mode 0640' ],
	[ "$NEXT\n", 0620, qr/may be accessed by others/, 'mode 0620' ],
	[ "$NEXT\n", 0604, qr/may be accessed by others/, 'mode 0604' ],
	[ "$NEXT\n", 0601, qr/may be accessed by others/, 'mode 0601' ],
	[ "$NEXT\n", 0000, qr/could not be opened/, 'mode 0000' ],
	[ '', 0600, qr/holds no secret/, 'an empty file' ],
	[ " \n\t\r\n\n", 0600, qr/holds no secret/, 'blank lines' ],
	[ "# $NEXT\n", 0600, qr/holds no secret/, 'comments alone' ],
	[ "whsec_\n", 0600, qr/malformed in line 1/, 'a prefix alone' ],
	[ "\nshop whsec_\n", 0600, qr/malformed in line 2/, 'a prefix with a label' ],
	[ "tap_second\n", 0600, qr/malformed in line 1/, 'no prefix' ],
	[ "shop\n$NEXT\n", 0600, qr/malformed in line 1/, 'a label alone' ],
	[ "$NEXT\nmy shop $NEXT", 0600, qr/malformed in line 2/, 'three words' ],
	[ "$NEXT$NEXT $NEXT x", 0600, qr/malformed in line 1/, 'a word too many' ],
	[ "$NEXT\0\n", 0600, qr/malformed in line 1/, 'a NUL' ],
	[ "whsec_tap_second\xc3\xa9", 0600, qr/malformed in line 1/, 'not ASCII' ],
	[ "\xef\xbb\xbf$NEXT\n", 0600, qr/malformed in line 1/, 'a byte order mark' ],
	[ 'l' x 64 . " $NEXT", 0600, qr/malformed in line 1/, 'a label too long' ],
	[ 'whsec_' . 'x' x 600, 0600, qr/malformed in line 1/, 'a secret too long' ],
	[
		join("\n", map { "whsec_tap_$_" } 1 .. 16) . "\n$NEXT\n",
		0600, qr/too many secrets/, 'seventeen secrets'
	],
	[ "# x\n" x 6000 . $NEXT, 0600, qr/too large/, 'too large a file' ]);

foreach my $case (@bad)
{
	my ($content, $mode, $why, $name) = @$case;

	SKIP:
	{
		skip 'root may open any file', 4 if $mode == 0 && $> == 0;
		write_secret($file, $content, $mode);
		$server->reload;
		is_unusable($why, $name);
	}
}

# A file that has become unusable is not made up for by what it held before.
write_secret($file, "new $NEXT\n");
$server->reload;
is(label_of($NEXT), 'new', 'mended');
unlink $file;
is(label_of($NEXT), 'new', 'a file is not looked at before the reload');
$server->reload;
is_unusable(qr/could not be opened/, 'a missing file');

write_secret("$data/webhook_secrets", "$NEXT\n");
POSIX::mkfifo("$server->{dir}/fifo", 0600) or die "mkfifo: $!";
(my $base = $data) =~ s{.*/}{};
my @places = (
	[ '', qr/is not set/, 'no file' ],
	[ 'webhook_secrets', qr/absolute path/, 'a relative path' ],
	[ "$server->{dir}", qr/not a regular file/, 'a directory' ],
	[ "$server->{dir}/fifo", qr/not a regular file/, 'a FIFO' ],
	[ '/dev/zero', qr/not a regular file/, 'a device' ],
	[ "$file/x", qr/could not be opened/, 'a path through no directory' ],
	[ '/etc/passwd', qr/may be accessed by others/, 'root\'s, for all to read' ],
	[ "$data/webhook_secrets", qr/in the data directory/, 'the data directory' ],
	[
		"$data/../$base//./webhook_secrets",
		qr/in the data directory/, 'the data directory in disguise'
	]);
foreach my $case (@places)
{
	my ($path, $why, $name) = @$case;

	use_file('webhook_secret_file', $path);
	is_unusable($why, $name);
}
write_secret($file, "$NEXT\n");
use_file('webhook_secret_file', $file);
is(label_of($NEXT), 'none', 'mended');

#
# The API key: the same rules, but the worker waits and warns
#

my $key_file = $server->{api_key_file};
my @waiting;

# A test: after this change the worker sends nothing and says why. It may say so
# as soon as the change is made, for requests are waiting already.
sub is_keyless
{
	my ($change, $why, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $length = $server->log_length;
	my $log;

	$change->();
	push @waiting, $server->create_payment;
	$log = eventually(
		sub { $server->log_text($length) },
		qr/WARNING: .* no API key.*\n.*DETAIL: .*\n/,
		"bad key: $name: the worker warns");
	like($log, $why, "bad key: $name: and says why");
	unlike($log, qr/tap_key/, "bad key: $name: and shows no key");
	return;
}

$server->intent_known($server->create_payment, 'with a key payments are sent');
eventually(sub { $server->workers }, 0, 'the worker leaves');
my $requests = $stripe->count('requests');
my @bad_keys = (
	[ "sk_test_tap_key\n", 0640, qr/may be accessed by others/, 'mode 0640' ],
	[ '', 0600, qr/holds no secret/, 'an empty file' ],
	[ "pk_test_tap_key\n", 0600, qr/malformed in line 1/, 'a publishable key' ],
	[ "sk_\n", 0600, qr/malformed in line 1/, 'a prefix alone' ],
	[ "sk_test_tap_key x\n", 0600, qr/malformed in line 1/, 'two words' ],
	[ "sk_test_tap_key\nrk_test_tap_key\n", 0600, qr/too many/, 'two keys' ],
	[ "# x\n" x 6000 . "sk_test_tap_key", 0600, qr/too large/, 'too large' ]);
foreach my $case (@bad_keys)
{
	my ($content, $mode, $why, $name) = @$case;

	is_keyless(
		sub { write_secret($key_file, $content, $mode); $server->reload; },
		$why, $name);
}
is_keyless(
	sub { unlink $key_file; $server->reload; },
	qr/could not be opened/,
	'a missing file');
write_secret("$data/api_key", "sk_test_tap_key\n");
foreach my $case (
	[ '', qr/is not set/, 'no file' ],
	[ 'api_key', qr/absolute path/, 'a relative path' ],
	[ "$server->{dir}/fifo", qr/not a regular file/, 'a FIFO' ],
	[ "$data/api_key", qr/in the data directory/, 'the data directory' ])
{
	is_keyless(sub { use_file('api_key_file', $case->[0]) },
		$case->[1], $case->[2]);
}
is($stripe->count('requests'), $requests, 'nothing was sent without a key');

write_secret($key_file, "# a comment\r\n  rk_test_tap_key\t\r\n");
use_file('api_key_file', $key_file);
$server->intent_known($_, 'all of it is sent with a good key')
  foreach @waiting;

$server->stop;
unlike($server->log_text, qr/tap_key|whsec_tap|tap_second/,
	'no secret is anywhere in the log');

done_testing();
