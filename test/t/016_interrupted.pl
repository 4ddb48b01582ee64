
# Calls whose end the worker did not live to see, or could not store, or that
# can't be made at all: each has an end on record, whatever kind of call it was,
# what it was for goes on at once and from the right place, and nothing else is
# held up.

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
	# at Stripe: the call is on record a little earlier
	eventually(sub { pages() - $before }, 2, "$name: the second page is under way");
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

# Somebody has a row locked that is to be looked up: the worker does not spin.
$stripe->fault(kind => '500_after');
$id = $server->create_payment;
eventually(sub { status($id) }, 'unknown', 'unknown');
my $locker = StripeLifecycle::Session->new($server->node, 'postgres');
SKIP:
{
	my $pid = $server->value("SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'stripe_lifecycle worker'");
	my $ticks = sub {
		my @stat = split ' ', slurp_file("/proc/$pid/stat");

		return $stat[13] + $stat[14];
	};

	skip 'no /proc', 1 unless -r "/proc/$pid/stat";
	$server->sql("UPDATE stripe_lifecycle.api_requests
		SET lookup_at = now() + interval '1 s' WHERE payment_id = '$id'");
	$locker->run("BEGIN; SELECT FROM stripe_lifecycle.api_requests
		WHERE payment_id = '$id' FOR UPDATE");
	$server->sql('SELECT stripe_lifecycle.wake_worker()');
	sleep 1.2;    # now it is due
	my $before = $ticks->();
	sleep 2;
	cmp_ok($ticks->() - $before, '<', 20, 'a locked row makes it wait, not spin');
}
$locker->run('ROLLBACK');
$locker->close;
eventually(sub { status($id) }, 'succeeded', 'and is looked up when it is free');

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

#
# Rows made bad by hand: each is set aside with its error, and the others go on
#

# As a superuser may do it, past the guards.
sub by_hand
{
	my ($sql) = @_;
	my @guarded = map { "ALTER TABLE stripe_lifecycle.$_" }
	  qw(payments api_requests api_attempts);

	$server->sql(
		join ";\n", 'BEGIN',
		(map { "$_ DISABLE TRIGGER stripe_lifecycle_guard" } @guarded), $sql,
		(map { "$_ ENABLE ALWAYS TRIGGER stripe_lifecycle_guard" } @guarded), 'COMMIT');
	return;
}

my $cannot_be_sent = '22023 the request holds a character that cannot be sent';
my @bad = (
	[ q{SET idempotency_key = E'bad\nkey'}, $cannot_be_sent ],
	[ q{SET idempotency_key = ''}, $cannot_be_sent ],
	[ q{SET path = E'/v1/payment_intents\r\nX: y'}, $cannot_be_sent ],
	[ q{SET path = 'http://example.com/'}, $cannot_be_sent ],
	[ q{SET method = 'BREW'}, $cannot_be_sent ],
	[ q{SET stripe_account = E'acct\nx'}, $cannot_be_sent ],
	[ q{SET payment_id = '01900000-0000-7000-8000-000000000000'},
		'23503 the request belongs to no payment' ],
	[ q{SET attempts = 2147483647},
		'22003 the database refused to have the request claimed' ],
	[ undef, '23505 the database refused to have the request claimed' ]);

# Between good ones, and then alone.
foreach my $together (1, 0)
{
	my $name = $together ? 'among others' : 'alone';
	my (@good, @requests);

	$server->sql('SELECT stripe_lifecycle.pause_worker()');
	foreach my $case (@bad)
	{
		push @good, $server->create_payment if $together;
		my $payment = $server->create_payment;
		my $request = $server->request($payment)->{id};

		by_hand(
			defined $case->[0]
			? "UPDATE stripe_lifecycle.api_requests $case->[0] WHERE id = $request"
			: "INSERT INTO stripe_lifecycle.api_attempts
				VALUES ($request, 1, now(), now(), 1, NULL, NULL, 'lost')");
		push @requests, [ $request, $payment ];
	}
	push @good, $server->create_payment if $together;
	my $log = $server->log_length;
	$server->sql('SELECT stripe_lifecycle.resume_worker()');
	$server->intent_known($_, "$name: a good request goes past the bad ones") foreach @good;
	foreach my $n (0 .. $#bad)
	{
		my ($request, $payment) = @{ $requests[$n] };
		my $case = $bad[$n][0] // 'a row of api_attempts';

		eventually(
			sub {
				$server->value(
					"SELECT concat_ws(' ', status, last_error ->> 'code', last_error ->> 'message')
					   FROM stripe_lifecycle.api_requests WHERE id = $request");
			},
			"unknown $bad[$n][1]",
			"$name: $case: set aside with its error");
		is(scalar $stripe->intents_of($payment), 0, "$name: $case: not sent");
	}
	is( $server->value(
			'SELECT count(*) FROM stripe_lifecycle.dead_requests
			  WHERE id = ANY (ARRAY[' . join(', ', map { $_->[0] } @requests) . '])'),
		scalar @bad,
		"$name: they are dead requests");
	is(scalar(() = $server->log_text($log) =~ /WARNING:  stripe_lifecycle set request \d+ aside/g),
		2, "$name: the log names those that could not be claimed");
	by_hand("UPDATE stripe_lifecycle.api_requests
		SET status = 'rejected', idempotency_key = 'was bad ' || id WHERE id = $_->[0]")
	  foreach @requests;
}

# Of a look-up and of a look at a payment.
my $unknown = $server->create_payment;
my $watched = $server->create_payment;
$server->intent_known($_) foreach $unknown, $watched;
by_hand(
	"UPDATE stripe_lifecycle.api_requests SET attempts = 2147483647,
		status = CASE payment_id WHEN '$unknown' THEN 'unknown' ELSE status END,
		lookup_at = CASE payment_id WHEN '$unknown' THEN now() END,
		watch_at = CASE payment_id WHEN '$watched' THEN now() END
	  WHERE payment_id IN ('$unknown', '$watched')");
$log = $server->log_length;
$server->intent_known($server->create_payment, 'others go past look-ups that cannot be made');
ok( $server->value(
		"SELECT bool_and(coalesce(lookup_at, watch_at) > now() + interval '50 min')
		   FROM stripe_lifecycle.api_requests
		  WHERE payment_id IN ('$unknown', '$watched')") eq 't',
	'which wait for an hour');
is(scalar(() = $server->log_text($log) =~ /WARNING:  stripe_lifecycle could not look up request/g),
	2, 'as the log says');
by_hand("UPDATE stripe_lifecycle.api_requests SET attempts = 1, status = 'succeeded'
	WHERE payment_id IN ('$unknown', '$watched')");

# Many of them, and all before the good one.
$server->sql('SELECT stripe_lifecycle.pause_worker()');
$server->sql(q{SELECT stripe_lifecycle.create_payment(100, 'eur', 'many-bad-' || n)
	FROM generate_series(1, 50) n});
by_hand("UPDATE stripe_lifecycle.api_requests SET attempts = 2147483647 WHERE status = 'queued'");
my $after_many = $server->create_payment;
$server->sql('SELECT stripe_lifecycle.resume_worker()');
$server->intent_known($after_many, 'a good request goes past fifty bad ones');
is($server->value("SELECT count(*) FROM stripe_lifecycle.dead_requests d
		JOIN stripe_lifecycle.payments p ON p.id = d.payment_id
		WHERE p.idempotency_key LIKE 'many-bad-%'"),
	50, 'which are set aside');
by_hand("UPDATE stripe_lifecycle.api_requests SET status = 'rejected', attempts = 1 WHERE status = 'unknown'");

# What was given up for its age is looked up, also beside a bad one.
$server->sql('SELECT stripe_lifecycle.pause_worker()');
my $expired = $server->create_payment;
my $beside = $server->create_payment;
by_hand("UPDATE stripe_lifecycle.api_requests SET
		attempts = CASE payment_id WHEN '$beside' THEN 2147483647 ELSE 1 END,
		first_sent_at = CASE payment_id WHEN '$expired' THEN now() - interval '24 h' END
	WHERE payment_id IN ('$expired', '$beside')");
$server->sql('SELECT stripe_lifecycle.resume_worker()');
eventually(sub { status($beside) }, 'unknown', 'a bad request behind one that is too old');
is( join(' ', map { $server->request($_)->{last_error}{code} } $expired, $beside),
	'key_expired 22003', 'each is set aside for its own reason');
unlike($server->request($expired)->{lookup_at}, qr/infinity/, 'the old one is looked up');
by_hand("UPDATE stripe_lifecycle.api_requests SET status = 'rejected', attempts = 1 WHERE status = 'unknown'");

# Some that somebody's trigger does not let be touched.
$server->sql('SELECT stripe_lifecycle.pause_worker()');
my @spoiled = map { $server->create_payment } 1 .. 3;
$server->sql(
	'CREATE TRIGGER spoil BEFORE UPDATE ON stripe_lifecycle.api_requests FOR EACH ROW WHEN (OLD.payment_id IN ('
	  . join(', ', map { quote($_) } @spoiled)
	  . ')) EXECUTE FUNCTION spoil()');
my @good = map { $server->create_payment } 1 .. 20;
$log = $server->log_length;
$server->sql('SELECT stripe_lifecycle.resume_worker()');
$server->intent_known($_, 'requests go past some that nobody may touch') foreach @good;
$server->intent_known($server->create_payment, 'also later');
sleep 2;
is(scalar(() = $server->log_text($log) =~ /WARNING: /g), 1, 'which is worth one warning');
like($server->log_text($log),
	qr/could not claim requests: SQLSTATE P0001\n.*DETAIL:.*passed over/, 'that says so');
$server->sql('DROP TRIGGER spoil ON stripe_lifecycle.api_requests');
$server->intent_known($_, 'when they may be touched they are sent') foreach @spoiled;

# However many these are, what is behind them is reached.
$server->sql('SELECT stripe_lifecycle.pause_worker()');
$server->sql("SELECT stripe_lifecycle.create_payment(1000, 'usd', 'many-' || i) FROM generate_series(1, 400) i");
my $last = $server->value('SELECT max(id) FROM stripe_lifecycle.api_requests');
$server->sql("CREATE TRIGGER spoil BEFORE UPDATE ON stripe_lifecycle.api_requests FOR EACH ROW WHEN (OLD.id <= $last)
	EXECUTE FUNCTION spoil()");
my $behind = $server->create_payment;
$server->sql('SELECT stripe_lifecycle.resume_worker()');
$server->intent_known($behind, 'a request behind 400 that nobody may touch is sent');
$server->intent_known($server->create_payment, 'and so is a later one');
is($server->value("SELECT count(*) FROM stripe_lifecycle.api_requests WHERE id <= $last AND status = 'queued' AND attempts = 0"),
	400, 'those have not been touched');
$server->sql('DROP TRIGGER spoil ON stripe_lifecycle.api_requests');
eventually(sub { $server->value("SELECT count(*) FROM stripe_lifecycle.api_requests WHERE id <= $last AND status = 'queued'") },
	'0', 'when they may be touched they are sent, too');

# Where a trigger refuses all, none is set aside.
$server->sql('SELECT stripe_lifecycle.pause_worker()');
$server->sql('CREATE TRIGGER spoil BEFORE INSERT ON stripe_lifecycle.api_attempts
	FOR EACH ROW EXECUTE FUNCTION spoil()');
my @refused = map { $server->create_payment } 1 .. 12;
$server->sql('SELECT stripe_lifecycle.resume_worker()');
sleep 2;
is($server->value("SELECT count(*) FROM stripe_lifecycle.api_requests
		WHERE status = 'queued' AND attempts = 0"),
	12, 'no request is set aside for a trigger that refuses all');
$server->sql('DROP TRIGGER spoil ON stripe_lifecycle.api_attempts');
$server->intent_known($_, 'when it is gone all are sent') foreach @refused;
no_call_is_open('no call is left open');

$server->audit_is_sound;
$server->stop;
unlike($server->log_text, qr/PANIC|TRAP|segfault/, 'no process crashed by itself');

done_testing();
