
# Signatures: ours against those of Stripe's own library for Python, and the
# stand-in's against the same library, so that the stand-in and the extension
# cannot be wrong in the same way.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use IPC::Run;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use StripeLifecycle;

# Debian's package belongs to Debian's Python, which need not be the first.
my ($python) = grep {
	system("$_ -c 'import stripe' >/dev/null 2>&1") == 0
} qw(python3 /usr/bin/python3);
plan skip_all => 'Python has no module stripe; script/bootstrap installs it'
  unless defined $python;

my $stripe = StripeLifecycle::StandIn->new(seed => 7);
my $server = StripeLifecycle->new('main', $stripe);
my $json = JSON::PP->new->utf8;

# Has Stripe's library do jobs; see test/interop.py.
sub sdk
{
	my (@jobs) = @_;
	my ($input, $output) = ($json->encode(\@jobs));

	IPC::Run::run([ $python, "$FindBin::RealBin/../interop.py" ],
		'<', \$input, '>', \$output)
	  or die 'interop.py failed';
	return @{ $json->decode($output) };
}

sub sdk_sign
{
	my ($body, $secret, $time) = @_;

	return (
		sdk({ sign => $secret, time => int $time, body => unpack 'H*', $body })
	)[0];
}

sub sdk_check
{
	my ($body, $header, $secret) = @_;

	return (
		sdk({ check => $secret, header => $header, body => unpack 'H*', $body })
	)[0];
}

# verify_webhook_signature(): 't' or 'f'
sub verify
{
	my ($body, $header, $secret) = @_;

	return $server->value(
		sprintf
		  q{SELECT stripe_lifecycle.verify_webhook_signature('\x%s'::bytea, %s, %s)},
		unpack('H*', $body), quote($header), quote($secret));
}

my $now = time;

#
# Headers made by Stripe's library
#

my %bodies = (
	compact => '{"id":"evt_1","object":"event"}',
	pretty => "{\n  \"id\": \"evt_1\",\n  \"object\": \"event\"\n}\n",
	unicode => "{\"name\":\"Gr\xc3\xbc\xc3\x9fe \xe2\x82\xac \xf0\x9f\x92\xb6\"}",
	escapes => '{"a":"\\\\u00e9 \\"\'"}',
	'line ends' => "{\r\n}\r\n ",
	long => '{"a":"' . ('0123456789' x 2000) . '"}');
foreach my $name (sort keys %bodies)
{
	my $body = $bodies{$name};
	my $header = sdk_sign($body, $WEBHOOK_SECRET, $now);

	is($header, sign($body, $WEBHOOK_SECRET, $now),
		"$name: the library and the tests sign alike");
	is(verify($body, $header, $WEBHOOK_SECRET),
		't', "$name: the library's header verifies");
	is( $server->value(
			sprintf
			  'SELECT stripe_lifecycle.verify_webhook_signature(%s::text, %s, %s)',
			quote($body), quote($header), quote($WEBHOOK_SECRET)),
		't', "$name: as text, too");
	is(verify($body . ' ', $header, $WEBHOOK_SECRET),
		'f', "$name: not for another body");
	is(verify($body, $header, "${WEBHOOK_SECRET}x"),
		'f', "$name: nor with another secret");
}

my $id = $server->create_payment;
$server->intent_known($id);
my ($created) = grep { $_->{type} eq 'payment_intent.created' } $stripe->pull;
is( $server->ingest(
		$created->{bytes},
		sdk_sign($created->{bytes}, $WEBHOOK_SECRET, $now)),
	'recorded',
	'ingest_webhook takes what the library signed');

#
# Headers made by the stand-in
#

$stripe->pay($server->payment($id, 'client_secret'), 'pm_card_visa');
foreach my $d ($stripe->pull)
{
	is(sdk_check($d->{bytes}, $d->{header}, $WEBHOOK_SECRET),
		'', "the library accepts the stand-in's $d->{type}");
	is(verify($d->{bytes}, $d->{header}, $WEBHOOK_SECRET),
		't', "so does verify_webhook_signature");
	like($server->ingest($d->{bytes}, $d->{header}),
		qr/^(applied|recorded|ignored)$/, 'and ingest_webhook');
}
is($server->state($id), 'succeeded', 'which moves the payment');

my $body = $created->{bytes};
my $printed;
IPC::Run::run(
	[
		'python3', "$FindBin::RealBin/../stripe_sim.py", 'sign', '--secret',
		$WEBHOOK_SECRET
	],
	'<', \$body, '>', \$printed);
chomp $printed;
is(sdk_check($body, $printed, $WEBHOOK_SECRET),
	'', 'the library accepts what `stripe_sim.py sign` prints');
is(verify($body, $printed, $WEBHOOK_SECRET), 't', 'so does the extension');

# What the stand-in can do wrong is wrong to both.
my %tricks = (
	wrong_secret => [ { wrong_secret => JSON::PP::true }, 0 ],
	'too old' => [ { clock_skew => -1000 }, 0 ],
	also_v0 => [ { also_v0 => JSON::PP::true }, 1 ],
	'two secrets' =>
	  [ { secrets => [ 'whsec_tap_new', $WEBHOOK_SECRET ] }, 1 ]);
foreach my $name (sort keys %tricks)
{
	my ($config, $good) = @{ $tricks{$name} };

	$stripe->webhooks(
		wrong_secret => JSON::PP::false,
		clock_skew => 0,
		also_v0 => JSON::PP::false,
		secrets => [$WEBHOOK_SECRET],
		%$config);
	$stripe->control('POST', 'webhooks/resend',
		{ event_id => $created->{event_id} });
	my ($d) = $stripe->pull;

	is(sdk_check($d->{bytes}, $d->{header}, $WEBHOOK_SECRET),
		$good ? '' : 'SignatureVerificationError', "$name: to the library");
	is(verify($d->{bytes}, $d->{header}, $WEBHOOK_SECRET),
		$good ? 't' : 'f', "$name: to verify_webhook_signature");
	is( $server->error($server->ingest_sql($d->{bytes}, $d->{header}))
		  ->{sqlstate} eq '' ? 1 : 0,
		$good,
		"$name: to ingest_webhook");
}

#
# Odd headers. Where we differ from the library it is on purpose.
#

my ($t, $v1) = sign($body) =~ /t=(\d+),v1=(\w+)/;
my $other = 'ab' x 32;
my $ahead = $t + 1000;
my ($v1_ahead) = sign($body, undef, $ahead) =~ /v1=(\w+)/;
my ($v1_minus) = StripeLifecycle::hmac_sha256_hex("-1.$body", $WEBHOOK_SECRET);
my @odd = (
	# header, the library's verdict, ours
	[ "v1=$v1,t=$t", 1, 1, 'v1 before t' ],
	[ "t=$t,v1=$other,v1=$v1", 1, 1, 'the second of two v1' ],
	[ "t=$t,v1=$v1,v0=$other", 1, 1, 'a v0 as well' ],
	[ "t=$t,v1=$v1,v2=$other,future=1", 1, 1, 'unknown items' ],
	[ "t=$t,v0=$v1", 0, 0, 'v0 alone' ],
	[ "t=$t", 0, 0, 't alone' ],
	[ "v1=$v1", 0, 0, 'v1 alone' ],
	[ "t=soon,v1=$v1", 0, 0, 't that is no number' ],
	[ "t=-1,v1=$v1_minus", 0, 0, 'negative t' ],
	[ "t=$t,v1=\U$v1", 0, 0, 'upper-case hex' ],
	[ "t=$t,v1=", 0, 0, 'empty v1' ],
	[ "t=$t,v1=" . substr($v1, 0, 63), 0, 0, 'short v1' ],
	[ "t=$ahead,v1=$v1_ahead", 1, 0, 'a time in the future: we refuse' ],
	[ "t=$t, v1=$v1", 0, 1, 'a blank after the comma: we accept' ]);
my @verdicts = sdk(
	map { { check => $WEBHOOK_SECRET, header => $_->[0], body => unpack 'H*', $body } }
	  @odd);
foreach my $case (@odd)
{
	my ($header, $library, $ours, $name) = @$case;

	is(shift(@verdicts) eq '' ? 1 : 0, $library, "$name: the library");
	is(verify($body, $header, $WEBHOOK_SECRET), $ours ? 't' : 'f',
		"$name: verify_webhook_signature");
}

$server->audit_is_sound;
done_testing();
