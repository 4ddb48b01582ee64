
=pod

=head1 NAME

StripeLifecycle::PostgREST - HTTP to a server, as PostgREST speaks it

=head1 SYNOPSIS

  my $rest = StripeLifecycle::PostgREST->new($server);
  my $answer = $rest->rpc('payment_status', { payment_id => $id });
  is($answer->{status}, 200);

  $rest->webhook($body, sign($body));

=head1 DESCRIPTION

Starts test/postgrest_sim.py, which does to the database what PostgREST does.
Roles, grants, settings and PostgREST's own configuration are those that
docs/postgrest.md tells its readers to use: they are taken from there.

=cut

package StripeLifecycle::PostgREST;

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256);
use File::Basename qw(dirname);
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP ();
use MIME::Base64 qw(encode_base64url);
use PostgreSQL::Test::Utils;
use StripeLifecycle ();
use Time::HiRes qw(sleep time);

my $top = dirname(__FILE__) . '/../..';

=pod

=over

=item StripeLifecycle::PostgREST::block(name)

A block of docs/postgrest.md: the one whose first line is a comment with this
name.

=cut

sub block
{
	my ($name) = @_;
	my ($block) = slurp_file("$top/../docs/postgrest.md") =~
	  /^```\w+\n(?:#|--) \Q$name\E[^\n]*\n(.*?)^```/ms
	  or die "docs/postgrest.md has no block $name";

	return $block;
}

=item StripeLifecycle::PostgREST::settings(name, ...)

The block postgresql.conf, without these settings of stripe_lifecycle and
without those that every cluster of the tests has already.

=cut

sub settings
{
	my $but = join '|', qw(api_key_file webhook_secret_file), @_;

	return join "\n",
	  grep { !/^(?:shared_preload_libraries|stripe_lifecycle\.(?:$but))\s*=/ }
	  split /\n/, block('postgresql.conf');
}

=item StripeLifecycle::PostgREST::set_up(server)

The block roles.sql, in the server's database postgres.

=cut

sub set_up
{
	my ($server) = @_;

	return $server->sql(block('roles.sql'));
}

=item StripeLifecycle::PostgREST->new(server, 'db-pool' => ..., ...)

Starts the stand-in with the block postgrest.conf, but for the settings given;
undef leaves one out. The server may also be a PostgreSQL::Test::Cluster.

=cut

sub new
{
	my ($class, $server, %options) = @_;
	my $node = $server->can('node') ? $server->node : $server;
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $self = bless { dir => $dir }, $class;
	my $give_up = time + $StripeLifecycle::DEADLINE;
	my %config = (
		(block('postgrest.conf') =~ /^([a-z-]+)\s*=\s*"?(.*?)"?\s*$/mg),
		'db-uri' => $node->connstr('postgres') . ' user=authenticator',
		'server-port' => 0,
		%options);

	delete $config{$_} foreach grep { !defined $config{$_} } keys %config;
	$self->{secret} = $config{'jwt-secret'};
	StripeLifecycle::write_secret("$dir/postgrest.conf",
		join '', map { "$_ = \"" . ($config{$_} =~ s/(["\\])/\\$1/gr) . "\"\n" } sort keys %config);
	$self->{pid} = StripeLifecycle::spawn('python3', "$top/postgrest_sim.py",
		"$dir/postgrest.conf", '--port-file', "$dir/port");
	until (-s "$dir/port")
	{
		die 'the stand-in for PostgREST did not start'
		  if time > $give_up || waitpid($self->{pid}, POSIX::WNOHANG()) != 0;
		sleep 0.01;
	}
	($self->{port}) = slurp_file("$dir/port") =~ /(\d+)/;
	return $self;
}

sub stop
{
	my ($self) = @_;

	StripeLifecycle::end_process($self->{pid});
	return;
}

=item $rest->reconnect

After the server's configuration has changed: the next requests are served by
new connections, which know it.

=cut

sub reconnect
{
	my ($self) = @_;

	return $self->request('POST', '/_sim/reconnect', '');
}

sub base { return "http://127.0.0.1:$_[0]->{port}"; }

# A token for a role, with further claims.
sub token
{
	my ($self, $role, %claims) = @_;
	my ($head, $body) = map { encode_base64url(JSON::PP->new->canonical->encode($_)) }
	  ({ alg => 'HS256', typ => 'JWT' }, { role => $role, %claims });

	return "$head.$body." . encode_base64url(hmac_sha256("$head.$body", $self->{secret}));
}

=item $rest->request(method, path, body, header => value, ...)

Returns a hash: status, reason, headers (names in lower case), content, json
(what the content is as JSON, undef if it is none), seconds.

=cut

sub request
{
	my ($self, $method, $path, $body, %headers) = @_;
	my $http = HTTP::Tiny->new(timeout => $StripeLifecycle::DEADLINE, keep_alive => 0);
	my $began = time;
	my $answer = $http->request($method, $self->base . $path,
		{ headers => \%headers, defined $body ? (content => $body) : () });

	die "$method $path: $answer->{content}" if $answer->{status} == 599;
	$answer->{seconds} = time - $began;
	$answer->{json} = eval { JSON::PP->new->utf8->allow_nonref->decode($answer->{content}) };
	return $answer;
}

sub get { my ($self, $path, %headers) = @_; return $self->request('GET', $path, undef, %headers); }

# A call with named arguments, or with a body that is JSON already.
sub rpc
{
	my ($self, $name, $arguments, %headers) = @_;
	my $body = ref $arguments ? JSON::PP->new->canonical->utf8->encode($arguments) : $arguments;

	return $self->request('POST', "/rpc/$name", $body,
		'Content-Type' => 'application/json', %headers);
}

# A delivery as Stripe makes it; without a signature header if that is undef.
sub webhook
{
	my ($self, $body, $signature, %headers) = @_;

	return $self->request(
		'POST', '/rpc/webhook', $body,
		'Content-Type' => 'application/json; charset=utf-8',
		'Accept' => '*/*; q=0.5, application/xml',
		'User-Agent' => 'Stripe/1.0 (+https://stripe.com/docs/webhooks)',
		defined $signature ? ('Stripe-Signature' => $signature) : (),
		%headers);
}

=item $rest->raw(bytes)

Sends these bytes and returns those of the answer, up to the end of its body.

=cut

sub raw
{
	my ($self, $bytes) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 10)
	  or die "connect: $@";
	my $answer = '';

	print $socket $bytes;
	$socket->flush;
	until ($answer =~ /\r\n\r\n/ && $answer =~ /^Content-Length: (\d+)\r$/m
		  && length($answer) >= index($answer, "\r\n\r\n") + 4 + $1)
	{
		last unless sysread $socket, $answer, 65536, length $answer;
	}
	return $answer;
}

# The same for one delivery, with the headers as they are given.
sub raw_webhook
{
	my ($self, $body, @headers) = @_;

	return $self->raw(
		join "\r\n",
		'POST /rpc/webhook HTTP/1.1',
		'Host: 127.0.0.1',
		'Content-Type: application/json',
		'Content-Length: ' . length $body,
		@headers, '', $body);
}

=pod

=back

=cut

1;
