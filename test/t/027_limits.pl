
# pre_request(): headers on every answer, and limits to what one client or one role may ask; with and
# without a preloaded library.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use StripeLifecycle;
use StripeLifecycle::PostgREST;

my $EVENT = '{"id":"evt_%d","object":"event","type":"a.b","created":1,"livemode":false,"data":{"object":{"id":"x"}}}';
my $n = 0;

my $stripe = StripeLifecycle::StandIn->new(seed => 27);
my $server = StripeLifecycle->new('main', $stripe);
StripeLifecycle::PostgREST::set_up($server);
my $rest = StripeLifecycle::PostgREST->new($server);
my $id = $server->create_payment;
my @shop = (Authorization => 'Bearer ' . $rest->token('shop'));

# How many of so many requests pass; all others have to be proper 429s.
sub passed
{
	my ($times, @headers) = @_;
	my $passed = 0;

	foreach (1 .. $times)
	{
		my $answer = $rest->get("/rpc/payment_status?payment_id=$id", @headers);

		if ($answer->{status} == 200)
		{
			$passed++;
			next;
		}
		return "an answer $answer->{status} $answer->{content}"
		  unless $answer->{status} == 429
		  && $answer->{reason} eq 'Too Many Requests'
		  && $answer->{json}{code} eq 'SL060'
		  && $answer->{json}{message} eq 'too many requests'
		  && $answer->{headers}{'retry-after'} =~ /^[1-9]\d*$/
		  && $answer->{headers}{'x-frame-options'} eq 'DENY'
		  && $answer->{headers}{'strict-transport-security'};
	}
	return $passed;
}

sub configure
{
	my %settings = @_;

	$server->configure(map { "stripe_lifecycle.$_ = '$settings{$_}'" } sort keys %settings);
	return $rest->reconnect;
}

# So slow a rate that nothing comes in while the test runs.
my %never = (rate_limit_address => 0.0001, rate_limit_address_burst => 5);

is(passed(100), 100, 'there is no limit by default');
is($server->value("SELECT status || ': ' || detail FROM stripe_lifecycle.health() WHERE check_name = 'rate_limits'"), 'ok: off', 'health() says so');

# Without a header for it, the client is whoever connects.
configure(%never);
is(passed(8, 'X-Real-IP' => '203.0.113.1'), 5, 'a burst, and no more');
is(passed(3, 'X-Real-IP' => '203.0.113.2'), 0, 'no header is believed unless a setting says so');
is(passed(3, 'X-Forwarded-For' => '203.0.113.3'), 0, 'none at all');
like($server->value("SELECT detail FROM stripe_lifecycle.health() WHERE check_name = 'rate_limits'"), qr{^address 0.0001/s; a client is whoever connects}, 'health() says so');

configure(%never, client_address_header => 'x-real-ip');
is(passed(8, 'X-Real-IP' => '203.0.113.1'), 5, 'a client has a bucket');
is(passed(8, 'X-Real-IP' => '203.0.113.2'), 5, 'another one has another');
is(passed(3, 'X-Real-IP' => '203.0.113.1:8080'), 0, 'with a port it is the same');
is(passed(3, 'X-Real-IP' => '::ffff:203.0.113.1'), 0, 'in the notation of IPv6 as well');
is(passed(8, 'X-Real-IP' => '2001:db8:1:2::1'), 5, 'IPv6');
is(passed(3, 'X-Real-IP' => '2001:db8:1:2:ffff::9'), 0, 'a network of 64 bits is one client');
is(passed(8, 'X-Real-IP' => '2001:db8:1:3::1'), 5, 'the next one is another');
is(passed(3, 'X-Real-IP' => $_), 0, "what is no address counts as the connection's: $_") foreach '', 'unknown', '203.0.113.300', "'; DROP TABLE", '{"a":1}';
is(passed(3), 0, 'and so does no header');
is($rest->rpc('payment_status', { payment_id => $id }, 'X-Real-IP' => '203.0.113.1')->{status}, 429, 'POST is counted as GET is');
is($rest->get('/payments', 'X-Real-IP' => '203.0.113.1')->{status}, 429, 'and every other path');

# Several proxies
configure(%never, client_address_header => 'x-forwarded-for');
is(passed(8, 'X-Forwarded-For' => '198.51.100.1, 203.0.113.11'), 5, 'the last address of a list');
is(passed(3, 'X-Forwarded-For' => "198.51.100.$_, 203.0.113.11"), 0, 'what stands before is of no avail') foreach 2 .. 3;
is(passed(3, 'X-Forwarded-For' => 'x, "], 203.0.113.11'), 0, 'whatever it is');
configure(%never, client_address_header => 'x-forwarded-for', client_address_hops => 2);
is(passed(8, 'X-Forwarded-For' => '198.51.100.1, 203.0.113.12, 192.0.2.1'), 5, 'the one before it, of two proxies');
is(passed(3, 'X-Forwarded-For' => '198.51.100.9, 203.0.113.12, 192.0.2.99'), 0, 'is the client');
is(passed(8, 'X-Forwarded-For' => '203.0.113.13'), 5, 'a shorter list has its first');

# Tokens come in again.
configure(rate_limit_address => 4, rate_limit_address_burst => 2, client_address_header => 'x-real-ip', client_address_hops => 1);
my @me = ('X-Real-IP' => '203.0.113.20');
is(passed(2, @me), 2, 'two at once');
my $answer = $rest->get("/rpc/payment_status?payment_id=$id", @me);
is($answer->{status}, 429, 'then no more');
is($answer->{headers}{'retry-after'}, 1, 'for a second at most');
my $began = time;
eventually(sub { $rest->get("/rpc/payment_status?payment_id=$id", @me)->{status} }, 200, 'until another token has come in');
cmp_ok(time - $began, '<', 5, 'which is soon');

# Roles
configure(rate_limit_address => 0, rate_limit_role => 0.0001, rate_limit_role_burst => 4);
is(passed(6, 'X-Real-IP' => '203.0.113.31'), 4, 'a role has a bucket');
is(passed(3, 'X-Real-IP' => '203.0.113.32'), 0, 'for all of its clients');
is(passed(6, @shop), 4, 'another role has another');
is($rest->rpc('create_payment', { amount => 1, currency => 'eur', idempotency_key => 'k' }, @shop)->{status}, 429, 'that is not for one function only');

# Webhooks pass.
foreach (1 .. 10)
{
	my $body = sprintf $EVENT, ++$n;

	$answer = $rest->webhook($body, sign($body)) if $_ == 1 || $answer->{status} == 200;
}
is($answer->{status}, 200, 'webhooks pass, though their role is over its limit');
is($rest->webhook('{}', 't=1')->{status}, 400, 'bad ones as well: they are counted apart');
is($rest->request('POST', '/rpc/webhook2', '{}', 'Content-Type' => 'application/json')->{status}, 404, 'not whatever looks alike');
configure(rate_limit_address => 0, rate_limit_role => 0.0001, rate_limit_role_burst => 4, webhook_path => '/rpc/elsewhere');
$answer = $rest->webhook(sprintf($EVENT, ++$n), 't=1');
is($answer->{status}, 429, 'it is webhook_path that passes');
configure(rate_limit_address => 0, rate_limit_role => 0, webhook_path => '/rpc/webhook');

# From a site's own function, in PL/pgSQL, which catches nothing
$server->sql(q{
	CREATE FUNCTION public.before() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
		$$ BEGIN PERFORM stripe_lifecycle.pre_request(); PERFORM set_config('tap.passed', 'yes', true); END $$;
	GRANT EXECUTE ON FUNCTION public.before() TO PUBLIC});
my $usual = $rest;
$rest = StripeLifecycle::PostgREST->new($server, 'db-pre-request' => 'public.before');
configure(rate_limit_role => 0.0001, rate_limit_role_burst => 3, rate_limit_address => 0);
is(passed(3, @shop), 0, 'called by a function of the site: the role of the request is what counts');
$rest->stop;
$rest = $usual;

# At the same time from many sides: not one too many.
configure(%never, rate_limit_role => 0);
my $results = PostgreSQL::Test::Utils::tempdir;
my @children;
foreach my $child (1 .. 8)
{
	push @children, spawn(sub { write_secret("$results/$child", passed(5, 'X-Real-IP' => '203.0.113.40')) });
}
StripeLifecycle::finish($_) foreach @children;
my @passed = map { slurp_file("$results/$_") } 1 .. 8;
is(eval { my $sum = 0; $sum += $_ foreach @passed; $sum }, 5, 'eight clients behind one address: five of forty pass') or diag "@passed";

# Databases don't share buckets.
$server->sql('CREATE DATABASE other');
$server->sql('CREATE EXTENSION stripe_lifecycle', 'other');
foreach my $database ('postgres', 'other')
{
	my $errors = 0;

	$errors += $server->error('SELECT stripe_lifecycle.pre_request()', $database)->{sqlstate} eq 'PGRST' foreach 1 .. 7;
	is($errors, 2, "a local client in database $database") if $database eq 'other';
}
$server->disconnect('other');

# More addresses than there is room for: the limit holds, and becomes stricter rather than laxer.
$server->sql(q{
	CREATE SCHEMA tap;
	CREATE FUNCTION tap.passes(address text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM set_config('request.headers', json_build_object('x-real-ip', address)::text, true);
		PERFORM stripe_lifecycle.pre_request();
		RETURN true;
	EXCEPTION WHEN SQLSTATE 'PGRST' THEN
		RETURN false;
	END $$});
is($server->value(q{SELECT count(*) FROM generate_series(1, 8) WHERE tap.passes('203.0.113.50')}), 5, 'one client');
my $flood = $server->value(q{
	SELECT count(*) FILTER (WHERE tap.passes(format('10.%s.%s.%s', i / 65536, i / 256 % 256, i % 256)))
	  FROM generate_series(1, 12000) i, generate_series(1, 3)});
cmp_ok($flood, '<=', 4096 * 5, 'twelve thousand others get no more than all buckets hold');
cmp_ok($flood, '>', 4096 * 4, 'and no less, while there is room');
is($server->value(q{SELECT count(*) FROM generate_series(1, 8) WHERE tap.passes('203.0.113.50')}), 0, 'and the first one has gained nothing');

# What does not make sense
fails_with($server->error("ALTER SYSTEM SET stripe_lifecycle.$_->[0] = '$_->[1]'"), $_->[2], qr/./, "$_->[0] = $_->[1]")
  foreach [ rate_limit_address => -1, '22023' ], [ rate_limit_address => 'much', '22023' ], [ rate_limit_address_burst => 0, '22023' ],
  [ client_address_header => 'X-Real-IP', '22023' ], [ client_address_header => 'a b', '22023' ], [ client_address_header => "a\nb", '22023' ],
  [ client_address_hops => 0, '22023' ], [ client_address_hops => 17, '22023' ];
fails_with($server->error("SET stripe_lifecycle.$_ = 1"), '55P02', qr/./, "no session sets $_")
  foreach qw(rate_limit_address rate_limit_address_burst rate_limit_role rate_limit_role_burst rate_limit_webhook rate_limit_webhook_burst client_address_hops);

$rest->stop;
$server->stop;
unlike($server->log_text, qr/TRAP:|PANIC:|terminated by signal/, 'nothing crashed');

#
# Without preloading: everything works that needs no shared memory, and it is said that limits don't.
#

my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init(extra => [ '--encoding=UTF8', '--locale=C', '--no-sync' ]);
my $secrets = PostgreSQL::Test::Utils::tempdir . '/webhook_secrets';
write_secret($secrets, "$WEBHOOK_SECRET\n");
$plain->append_conf('postgresql.conf', StripeLifecycle::PostgREST::settings() . "
stripe_lifecycle.webhook_secret_file = '$secrets'
stripe_lifecycle.rate_limit_address = 0.0001
stripe_lifecycle.rate_limit_address_burst = 1
log_line_prefix = '%m [%p] '
");
$plain->start;
$plain->safe_psql('postgres', 'CREATE EXTENSION stripe_lifecycle');
$plain->safe_psql('postgres', StripeLifecycle::PostgREST::block('roles.sql'));
$rest = StripeLifecycle::PostgREST->new($plain, 'db-pool' => 1);
$id = $plain->safe_psql('postgres', "SELECT stripe_lifecycle.create_payment(100, 'eur', 'k')");
is(passed(10), 10, 'not preloaded: no limits');
$answer = $rest->get("/rpc/payment_status?payment_id=$id");
is($answer->{headers}{'x-content-type-options'}, 'nosniff', 'not preloaded: headers');
my $body = sprintf $EVENT, ++$n;
is($rest->webhook($body, sign($body))->{json}{outcome}, 'ignored', 'not preloaded: webhooks are taken in');
is($rest->webhook($body, 't=1')->{status}, 400, 'not preloaded: or refused');
my $log = slurp_file($plain->logfile);
is(scalar(() = $log =~ /WARNING:  rate limits of stripe_lifecycle are not in force/g), 1, 'not preloaded: one warning a session');
like($plain->safe_psql('postgres', "SELECT status || ': ' || detail FROM stripe_lifecycle.health() WHERE check_name = 'rate_limits'"),
	qr/^warning: set \(address 0.0001.*not in force/, 'not preloaded: health() says so');
is($plain->safe_psql('postgres', 'SELECT count(*) FROM stripe_lifecycle.webhook_rejections'), 0, 'not preloaded: no list of rejections');

# and a wait sees what happens all the same
my $file = PostgreSQL::Test::Utils::tempdir . '/answer';
my $child = spawn(sub { write_secret($file, $rest->rpc('payment_status', { payment_id => $id, wait => '20 s' })->{content}) });
ok($plain->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND backend_xmin IS NULL AND backend_type = 'client backend'}),
	'not preloaded: a request waits, without a snapshot');
$body = sprintf '{"id":"evt_1","object":"event","type":"payment_intent.processing","created":%d,"livemode":false,"data":{"object":{"id":"pi_1","object":"payment_intent","amount":100,"currency":"eur","status":"processing","metadata":{"stripe_lifecycle_payment_id":"%s"}}}}', time, $id;
$plain->safe_psql('postgres', sprintf 'SELECT stripe_lifecycle.ingest_webhook(%s::text, %s)', quote($body), quote(sign($body)));
$began = time;
StripeLifecycle::finish($child);
cmp_ok(time - $began, '<', 5, 'not preloaded: it notices a change');
like(slurp_file($file), qr/"state":"processing"/, 'not preloaded: and answers');
$rest->stop;
$plain->stop;

done_testing();
