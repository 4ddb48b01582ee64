
# Calls whose end the worker did not live to see, or could not store: each has
# an end on record, whatever kind of call it was, and what it was for goes on at
# once and from the right place.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use StripeLifecycle;

my $stripe = StripeLifecycle::StandIn->new(seed => 16);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
stripe_lifecycle.worker_linger = 60s
stripe_lifecycle.connect_timeout = 2s
stripe_lifecycle.request_timeout = 5s
stripe_lifecycle.retry_base_delay = 40
stripe_lifecycle.retry_max_delay = 200
});

my ($LIST, $RETRIEVE) =
  ('GET /v1/payment_intents', 'GET /v1/payment_intents/:id');

$stripe->webhooks(mode => 'pull');

sub status
{
	my ($id) = @_;
	my $request = $server->request($id, 'create');

	return $request ? $request->{status} : 'none';
}

sub looks
{
	my ($id) = @_;

	return grep { $_->{method} eq 'GET' } @{ $server->attempts($id) };
}

sub results { return join ' ', map { $_->{result} // 'open' } looks($_[0]); }

# Pages of the list of PaymentIntents that were asked for: after which one.
sub pages
{
	return map { $_->{body} =~ /starting_after=(\w+)/ ? $1 : 'first' }
	  grep { $_->{path} eq '/v1/payment_intents' && $_->{method} eq 'GET' }
	  @{ $stripe->ledger->{requests} };
}

# Bookkeeping that a superuser may change.
sub look_now
{
	my ($id, $column) = @_;

	$server->sql("UPDATE stripe_lifecycle.api_requests SET $column = now()
		WHERE payment_id = '$id' AND operation = 'create'");
	$server->sql('SELECT stripe_lifecycle.wake_worker()');
	return;
}

# As if it had become unknown so long ago that nothing can be under way: the
# timeout and a minute, and a little more.
sub grow_old
{
	my ($id) = @_;

	$server->sql("UPDATE stripe_lifecycle.api_requests
		SET finished_at = now() - interval '70 s'
		WHERE payment_id = '$id' AND status = 'unknown'");
	return;
}

sub kill_worker
{
	my $pid = $server->value("SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'stripe_lifecycle worker'");

	$server->disconnect;
	kill 'KILL', $pid;
	ok($server->node->poll_query_until('postgres', 'SELECT true'),
		'the server is back after a crash');
	return;
}

sub no_call_is_open
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(
		$server->value(
			q{SELECT string_agg(format('%s: %s', request_id, attempt), ', ')
			    FROM stripe_lifecycle.api_attempts
			   WHERE finished_at IS NULL OR result IS NULL}),
		'', $name);
}

#
# A search that began too early to prove that something is absent
#

# 250 PaymentIntents of others: three pages, none of them ours.
$stripe->api('payment_intents', 'amount=100&currency=eur') foreach 1 .. 250;

sub absent_payment
{
	$stripe->fault(kind => '500', save => JSON::PP::true);
	my $id = $server->create_payment;

	eventually(sub { status($id) }, 'unknown', 'Stripe did nothing and says 500 for ever');

	# the second page takes its time
	$stripe->fault(
		route => $LIST,
		kind => 'delay',
		delay_ms => 1500,
		skip => 1,
		count => 1);
	return $id;
}

foreach my $killed (0, 1)
{
	my $name = $killed ? 'interrupted by a crash' : 'not interrupted';
	my $id = absent_payment();
	my $before = pages();

	look_now($id, 'lookup_at');
	eventually(sub { scalar looks($id) }, 2, "$name: the second page is under way");
	like($server->request($id, 'create')->{lookup_cursor},
		qr/^-pi_/, "$name: of a search that can't prove anything");
	grow_old($id);
	kill_worker() if $killed;
	eventually(sub { status($id) },
		'rejected', "$name: the next search proves that there is none");
	my @pages = splice @{ [ pages() ] }, $before;
	is(scalar @pages, 5, "$name: two pages too early, and then three");
	is($pages[2], 'first', "$name: it begins afresh as soon as it can be conclusive");
	is($server->request($id, 'create')->{last_error}{code},
		'not_created', "$name: with that result");
	is( results($id),
		$killed
		? 'succeeded lost succeeded succeeded succeeded'
		: 'succeeded succeeded succeeded succeeded succeeded',
		"$name: each look is on record");
}
no_call_is_open('no call is left open');

# A search that finds nothing too early is repeated when it can be conclusive,
# and not later than that.
$server->configure('stripe_lifecycle.request_timeout = 100s');
$stripe->fault(kind => '500', save => JSON::PP::true);
my $id = $server->create_payment;
eventually(sub { status($id) }, 'unknown', 'another one');
$server->sql("UPDATE stripe_lifecycle.api_requests
	SET finished_at = now() - interval '155 s', lookup_at = now()
	WHERE payment_id = '$id'");
$server->sql('SELECT stripe_lifecycle.wake_worker()');
eventually(
	sub {
		$server->value("SELECT lookup_at - finished_at FROM stripe_lifecycle.api_requests
			WHERE payment_id = '$id' AND lookup_cursor IS NULL
			  AND lookup_at > now() - interval '2 s'");
	},
	'00:02:40',
	'the next look is as soon as it can be conclusive');
eventually(sub { status($id) }, 'rejected', 'and it is');
$server->configure('stripe_lifecycle.request_timeout = 5s');

#
# A look at a payment that does not end
#

sub open_payment
{
	my $payment = $server->create_payment(@_);

	$server->intent_known($payment);
	$server->deliver_webhooks($stripe);
	return $payment;
}

# The worker dies, and the payment has not ended: it is looked at again at once.
$id = open_payment();
$stripe->fault(route => $RETRIEVE, kind => 'delay', delay_ms => 1500, count => 1);
look_now($id, 'watch_at');
eventually(sub { scalar looks($id) }, 1, 'a look is under way');
kill_worker();
eventually(sub { results($id) },
	'lost succeeded', 'after a crash the next look follows');
cmp_ok((looks($id))[1]{started} - (looks($id))[0]{started},
	'<', 30, 'and does not wait for the lease to end');

# The worker dies, and the payment ends meanwhile: no further look, but the one
# that was lost has an end.
$id = open_payment();
$stripe->fault(route => $RETRIEVE, kind => 'delay', delay_ms => 1500, count => 1);
look_now($id, 'watch_at');
eventually(sub { scalar looks($id) }, 1, 'a look is under way');
$stripe->pay($server->payment($id, 'client_secret'), 'pm_card_visa');
$server->deliver_webhooks($stripe);
is($server->state($id), 'succeeded', 'meanwhile the payment succeeds');
kill_worker();
eventually(sub { results($id) }, 'lost', 'the look is lost');
eventually(
	sub { $server->request($id, 'create')->{watch_at} // 'none' },
	'none', 'and no other one is planned');
is(scalar looks($id), 1, 'or was made');

# The same, but nobody dies.
$id = open_payment();
$stripe->fault(route => $RETRIEVE, kind => 'delay', delay_ms => 1000, count => 1);
look_now($id, 'watch_at');
eventually(sub { scalar looks($id) }, 1, 'a look is under way');
$stripe->pay($server->payment($id, 'client_secret'), 'pm_card_visa');
$server->deliver_webhooks($stripe);
look_now(open_payment(), 'watch_at');
eventually(sub { results($id) },
	'succeeded', 'a look whose payment has ended meanwhile is recorded');
is($server->request($id, 'create')->{watch_at}, undef, 'it was the last one');
no_call_is_open('no call is left open');

#
# An operator sends again what is being looked up
#

$stripe->fault(kind => '500_after');
$id = $server->create_payment;
eventually(sub { status($id) }, 'unknown', 'unknown');
$stripe->fault(route => $LIST, kind => 'delay', delay_ms => 1000, count => 1);
look_now($id, 'lookup_at');
eventually(sub { scalar looks($id) }, 1, 'a look-up is under way');
my $log = $server->log_length;
$server->sql("SELECT stripe_lifecycle.retry_request(id) FROM stripe_lifecycle.api_requests
	WHERE payment_id = '$id'");
eventually(sub { results($id) },
	'succeeded', 'its answer is recorded, though nobody needs it any more');
eventually(sub { status($id) }, 'unknown', 'the repetition brings the same as before');
look_now($id, 'lookup_at');
eventually(sub { status($id) }, 'succeeded', 'the next look-up decides');
unlike($server->log_text($log), qr/WARNING/, 'without any complaint');
is(scalar $stripe->intents_of($id), 1, 'there is one PaymentIntent');

#
# Calls in flight, of which nothing is known but that they were made
#

$stripe->fault(kind => 'delay', delay_ms => 1500, count => 5);
my @ids = map { $server->create_payment } 1 .. 5;
eventually(
	sub {
		$server->value("SELECT count(*) FROM stripe_lifecycle.api_attempts
			WHERE finished_at IS NULL");
	},
	5,
	'five calls are under way');
kill_worker();
$server->intent_known($_) foreach @ids;
# Stripe says 409 while the first one is still under way there.
like(
	join(' ', map { join '-', map { $_->{result} } @{ $server->attempts($_) } } @ids),
	qr/^(?:lost-(?:retry-)*succeeded ?){5}$/,
	'each is made again, and the first is on record as lost');
no_call_is_open('no call is left open');

#
# Answers that the database refuses, and calls that can't be made
#

$server->sql(q{
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE 'spoiled'; END$$;
CREATE TRIGGER spoil BEFORE UPDATE ON stripe_lifecycle.payments
	FOR EACH ROW EXECUTE FUNCTION spoil()});
$id = $server->create_payment;
eventually(sub { status($id) }, 'unknown', 'an answer that cannot be stored');
is( join(' ', map { "$_->{result} $_->{error}" } @{ $server->attempts($id) }),
	'unknown SQLSTATE P0001: the database refused to store the answer',
	'the call is on record');
look_now($id, 'lookup_at');
eventually(sub { join ' ', map { $_->{error} // '' } looks($id) },
	qr/^SQLSTATE P0001: the look-up/, 'and so is a look-up of which the same is true');
is(status($id), 'unknown', 'which decides nothing');
$server->sql('DROP TRIGGER spoil ON stripe_lifecycle.payments');
look_now($id, 'lookup_at');
eventually(sub { status($id) }, 'succeeded', 'until its answer can be stored');

# Made bad by hand: the others go on.
$server->sql('SELECT stripe_lifecycle.pause_worker()');
my $bad = $server->create_payment;
my $good = $server->create_payment;
$server->sql(qq{
ALTER TABLE stripe_lifecycle.api_requests DISABLE TRIGGER stripe_lifecycle_guard;
UPDATE stripe_lifecycle.api_requests SET idempotency_key = E'bad\\nkey' WHERE payment_id = '$bad';
ALTER TABLE stripe_lifecycle.api_requests ENABLE ALWAYS TRIGGER stripe_lifecycle_guard});
$server->sql('SELECT stripe_lifecycle.resume_worker()');
$server->intent_known($good, 'a good request goes past a bad one');
eventually(sub { status($bad) }, 'unknown', 'which is set aside');
is( join(' ', map { "$_->{result} $_->{error}" } @{ $server->attempts($bad) }),
	'unknown SQLSTATE 22023: the request holds a character that cannot be sent',
	'with the reason');
is(scalar $stripe->intents_of($bad), 0, 'and not sent');
no_call_is_open('no call is left open');

$server->audit_is_sound;
$server->stop;
unlike($server->log_text, qr/PANIC|TRAP|segfault/, 'no process crashed by itself');

done_testing();
