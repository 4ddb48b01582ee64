
# Webhooks that never come: the worker reads Stripe's own list of events, and
# every payment gets where it belongs; and it looks at payments that do not end.

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

my $EVENTS = 'GET /v1/events';

# All webhooks are withheld throughout: they wait at the stand-in.
my $stripe = StripeLifecycle::StandIn->new(seed => 13);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
stripe_lifecycle.worker_linger = 0
stripe_lifecycle.connect_timeout = 2s
stripe_lifecycle.request_timeout = 20s
stripe_lifecycle.retry_base_delay = 40
stripe_lifecycle.reconcile_interval = 1s
});

# How far it has come, for the key's own account.
sub reconciled
{
	return $server->row(
		"SELECT * FROM stripe_lifecycle.reconcile_state WHERE account = ''");
}

sub event_pages
{
	return grep { $_->{path} eq '/v1/events' } @{ $stripe->ledger->{requests} };
}

# Superuser's bookkeeping: the next run is due now, and so is what could not be
# taken in.
sub run_now
{
	$server->sql("UPDATE stripe_lifecycle.reconcile_state SET due_at = now(),
		retry_at = CASE WHEN retry_at IS NOT NULL THEN now() END $_[0]");
	$server->sql('SELECT stripe_lifecycle.wake_worker()');
	return;
}

sub runs_once
{
	my ($name, $set) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = reconciled()->{last_finished_at} // '';

	run_now($set // '');
	return eventually(
		sub { reconciled()->{last_finished_at} // '' },
		sub { $_[0] ne $before }, $name);
}

sub pay_params
{
	my ($method) = @_;

	return {
		payment_method => $method,
		confirm => JSON::PP::true,
		return_url => 'https://example.com/done'
	};
}

#
# Nothing to do
#

sleep 1.5;
is(scalar event_pages(), 0, 'without payments Stripe is not asked');
is(reconciled(), undef, 'and there is nothing to keep track of');
is($server->workers, 0, 'no worker is there');

#
# Every end that a payment can have
#

# PaymentIntents and events of somebody else in the same account
$stripe->api('payment_intents',
	'amount=100&currency=eur&confirm=true&payment_method=pm_card_visa'
	  . '&return_url=https%3A%2F%2Fexample.com%2F'
	  . '&metadata[stripe_lifecycle_payment_id]=01900000-0000-7000-8000-000000000000')
  foreach 1 .. 3;

my %payments = (
	paid => [ { params => pay_params('pm_card_visa') }, 'succeeded' ],
	declined => [ { params => pay_params('pm_card_chargeDeclined') }, 'failed' ],
	waiting => [ {}, 'created' ],
	challenged => [
		{ params => pay_params('pm_card_threeDSecure2Required') },
		'requires_action' ],
	debited => [
		{
			params => {
				%{ pay_params('pm_usBankAccount_success') },
				payment_method_types => ['us_bank_account'],
				mandate_data => {
					customer_acceptance => { type => 'offline', offline => {} }
				}
			},
			currency => 'usd'
		},
		'processing' ],
	authorised => [
		{
			params => pay_params('pm_card_visa'),
			capture_method => 'manual'
		},
		'processing' ],
	retried => [
		{
			params => pay_params('pm_card_chargeDeclined'),
			decline_policy => 'retry'
		},
		'created' ]);
my %id;

$id{$_} = $server->create_payment(%{ $payments{$_}[0] }) foreach sort keys %payments;
foreach my $name (sort keys %payments)
{
	eventually(sub { $server->state($id{$name}) },
		$payments{$name}[1], "without webhooks: $name");
}
eventually(sub { $server->payment($id{retried}, 'decline_count') },
	1, 'a decline that moves nothing is counted');
eventually(sub { $server->request($id{declined}, 'cancel')->{status} // '' },
	'succeeded', 'a declined payment is canceled at Stripe');
is( $server->value(
		"SELECT string_agg(DISTINCT source, ' ')
		   FROM stripe_lifecycle.payment_transitions WHERE seq > 1"),
	'events_api',
	'the audit trail shows where the evidence came from');
is( $server->value(
		"SELECT string_agg(DISTINCT source || coalesce(secret_label, ''), ' ')
		   FROM stripe_lifecycle.webhook_events"),
	'events_api',
	'and so do the events');
is( $server->value(
		"SELECT count(*) FROM stripe_lifecycle.webhook_events
		  WHERE outcome IN ('unmatched', 'ignored') OR payment_id IS NULL"),
	0,
	'events of others are not stored');

# Later things, by the customer and by the merchant
$stripe->authenticate($server->payment($id{challenged}, 'payment_intent_id'), 'succeed');
$stripe->api("payment_intents/@{[$server->payment($id{waiting}, 'payment_intent_id')]}/cancel", '');
$stripe->api("payment_intents/@{[$server->payment($id{authorised}, 'payment_intent_id')]}/capture", '');
$stripe->pay($server->payment($id{retried}, 'client_secret'), 'pm_card_visa');
$stripe->control('POST',
	"payment_intents/@{[$server->payment($id{debited}, 'payment_intent_id')]}/settle",
	{ outcome => 'succeed' });
foreach (
	[ challenged => 'succeeded' ],
	[ waiting => 'failed' ],
	[ authorised => 'succeeded' ],
	[ retried => 'succeeded' ],
	[ debited => 'succeeded' ])
{
	eventually(sub { $server->state($id{ $_->[0] }) },
		$_->[1], "later: $_->[0] has $_->[1]");
}
my $state = reconciled();
is($state->{account}, '', 'the account is the key\'s own');
ok( $server->value(
		'SELECT now() - proven_until < interval \'1 min\' AND last_error IS NULL
			AND gap_from IS NULL FROM stripe_lifecycle.reconcile_state') eq 't',
	'how far that is proven is on record');

# Deliveries that come after all are duplicates.
my %outcomes = map { $_ => 1 } $server->deliver_webhooks($stripe, qr/^payment_intent/);
my @states = map { $server->state($id{$_}) } sort keys %id;
is( $server->value(
		"SELECT count(*) FROM stripe_lifecycle.webhook_events
		  WHERE payment_id IS NOT NULL AND source <> 'events_api'"),
	0,
	'webhooks that come after all change nothing');
$server->audit_is_sound;

# The worker ends between two runs and comes back by itself.
my $pages = event_pages();
eventually(sub { scalar event_pages() },
	sub { $_[0] > $pages + 1 }, 'run after run, without anybody at work');
eventually(sub { $server->workers }, 0, 'and no worker in between');

#
# Switched off and on
#

$server->configure('stripe_lifecycle.reconcile_interval = 0');
eventually(sub { my $n = event_pages(); sleep 1.2; event_pages() - $n },
	0, '0 switches it off');
my $late = $server->create_payment(params => pay_params('pm_card_visa'));
$server->intent_known($late);
$server->configure('stripe_lifecycle.reconcile_interval = 1h');
run_now('');
eventually(sub { $server->state($late) },
	'succeeded', 'what happened meanwhile is caught up with');

#
# Many pages, and a crash between two of them
#

my $MANY = 130;
$server->sql("SELECT stripe_lifecycle.create_payment(1000 + n, 'eur', 'many-' || n,
		params => '{\"payment_method\": \"pm_card_visa\", \"confirm\": true,
			\"return_url\": \"https://example.com/\"}')
	FROM generate_series(1, $MANY) n");
eventually(
	sub {
		$server->value("SELECT count(*) FROM stripe_lifecycle.payments
			WHERE idempotency_key LIKE 'many-%' AND payment_intent_id IS NOT NULL");
	},
	$MANY,
	'many payments');
$stripe->fault(
	route => $EVENTS,
	kind => 'delay',
	delay_ms => 3000,
	skip => 1,
	count => 1);
my $before = event_pages();
run_now('');
eventually(sub { reconciled()->{run_after} // '' },
	qr/^evt_/, 'how far the run has come is stored');
eventually(sub { event_pages() - $before }, 2, 'the next page is under way');
my $pid = $server->value("SELECT pid FROM pg_stat_activity
	WHERE backend_type = 'stripe_lifecycle worker'");
$server->disconnect;
kill 'KILL', $pid;
ok($server->node->poll_query_until('postgres', 'SELECT true'), 'back after a crash');
eventually(
	sub {
		$server->value("SELECT count(*) FROM stripe_lifecycle.payments
			WHERE idempotency_key LIKE 'many-%' AND state = 'succeeded'");
	},
	$MANY,
	'every payment is there');
eventually(sub { reconciled()->{run_started_at} // 'none' }, 'none', 'the run ends');
my @pages = map { $_->{body} =~ /starting_after=(\w+)/ ? $1 : 'first' }
  splice @{ [ event_pages() ] }, $before;
is(scalar(grep { $_ eq 'first' } @pages), 1, 'it did not begin anew');
is($pages[1], $pages[2], 'the page that was lost was fetched again');
$server->audit_is_sound;

#
# Pages that can't be had, events that can't be taken in
#

my @bad = map { $server->create_payment(params => pay_params('pm_card_visa')) } 1 .. 3;
$server->intent_known($_) foreach @bad;
$stripe->fault(map { { route => $EVENTS, kind => $_, count => 1 } } qw(401 500 truncate));
foreach my $n (1 .. 3)
{
	run_now('');
	eventually(sub { reconciled()->{failures} }, $n, "failure $n is counted");
}
is($server->state($bad[0]), 'created', 'nothing was read');
ok( $server->value('SELECT due_at > now() + interval \'20 s\' AND last_error IS NOT NULL
		FROM stripe_lifecycle.reconcile_state') eq 't',
	'the next attempt comes later');

$server->sql(qq{
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
	\$\$BEGIN RAISE 'a secret of the trigger'; END\$\$;
CREATE TRIGGER spoil BEFORE UPDATE ON stripe_lifecycle.payments
	FOR EACH ROW WHEN (OLD.id = '$bad[1]') EXECUTE FUNCTION spoil()});
sleep 1.1;    # by Stripe's clock, which shows seconds, later than the events
runs_once('a run in which one payment refuses its event');
is(join(' ', map { $server->state($_) } @bad),
	'succeeded created succeeded', 'the others go on');
$state = reconciled();
is("$state->{last_error}{source} $state->{last_error}{code} $state->{failures}",
	'reconcile P0001 0', 'it is recorded');
like($state->{last_error}{message}, qr/^event evt_\w+ could not be taken in$/,
	'by its id');
is($state->{failing}, 2, 'and counted, with the one that told of the PaymentIntent');
ok( $server->value(
		"SELECT proven_until <= retry_from AND cursor_created > retry_from
			AND retry_at - failing_since = '10 s' FROM stripe_lifecycle.reconcile_state") eq 't',
	'the cursor goes on; how far all is proven does not');
like($server->health('reconciliation'),
	qr/^warning: 2 events could not be taken in/, 'health() warns');

# One warning, however often it is tried, and pauses that grow.
sub warnings_of_events
{
	return scalar(() = $server->log_text =~ /WARNING:  stripe_lifecycle could not take in event/g);
}
my $warned = warnings_of_events();
foreach my $age ('3 min', '2 h', '9 d')
{
	runs_once("a run that tries it again after $age", ", failing_since = now() - interval '$age'");
	is( $server->value(
			"SELECT failing || ' ' || round(extract(epoch FROM retry_at - last_finished_at)
				/ extract(epoch FROM least(last_finished_at - failing_since, '1 d')), 1)
			   FROM stripe_lifecycle.reconcile_state"),
		'2 1.0',
		'the next one is after as long, a day at most');
}
is(warnings_of_events(), $warned, 'no further warning of the same event');
is(reconciled()->{failing_error}{code}, 'P0001', 'which is still on record');

# A run that is not due to try it again does not begin there.
$server->sql("UPDATE stripe_lifecycle.reconcile_state
	SET cursor_created = now() + interval '6 min', due_at = now()");
my $finished = reconciled()->{last_finished_at};
$server->sql('SELECT stripe_lifecycle.wake_worker()');
eventually(sub { reconciled()->{last_finished_at} },
	sub { $_[0] ne $finished }, 'a run that begins after it');
ok( $server->value(
		"SELECT failing = 2 AND failing_error ->> 'code' = 'P0001' AND retry_at > now() + interval '1 h'
			AND proven_until <= retry_from AND last_error IS NULL
		   FROM stripe_lifecycle.reconcile_state") eq 't',
	'changes nothing of that');
$server->sql('DROP TRIGGER spoil ON stripe_lifecycle.payments');
runs_once('the next run');
is($server->state($bad[1]), 'succeeded', 'tries it again');
is(reconciled()->{last_error}, undef, 'and nothing is left to complain about');
ok( $server->value(
		'SELECT failing = 0 AND failing_since IS NULL AND retry_from IS NULL
			AND retry_at IS NULL AND failing_error IS NULL AND proven_until = cursor_created
		   FROM stripe_lifecycle.reconcile_state') eq 't',
	'or to try again');

# A payment that somebody has locked
my @busy = map { $server->create_payment(params => pay_params('pm_card_visa')) } 1 .. 2;
$server->intent_known($_) foreach @busy;
my $locker = StripeLifecycle::Session->new($server->node, 'postgres');
$locker->run("BEGIN; SELECT FROM stripe_lifecycle.payments WHERE id = '$busy[0]' FOR UPDATE");
runs_once('a run that meets a lock');
is(join(' ', map { $server->state($_) } @busy),
	'created succeeded', 'is not held up by it');
$locker->run('ROLLBACK');
$locker->close;
runs_once('the next run');
is($server->state($busy[0]), 'succeeded', 'comes back to it');

#
# The connected account has events of its own
#

my $connected = $server->create_payment(
	stripe_account => 'acct_1TapConnected',
	params => pay_params('pm_card_visa'));
$server->intent_known($connected);
run_now("WHERE account = 'acct_1TapConnected'");
eventually(sub { $server->state($connected) },
	'succeeded', 'a connected account is asked for its own events');
is($server->value('SELECT count(*) FROM stripe_lifecycle.reconcile_state'),
	2, 'and has a cursor of its own');

#
# Longer than Stripe remembers
#

runs_once('a run after forty days', ", cursor_created = now() - interval '40 d' WHERE account = ''");
is( $server->value(
		"SELECT (now() - gap_from)::text ~ '^40 days' AND (now() - gap_to)::text ~ '^30 days'
		   FROM stripe_lifecycle.reconcile_state WHERE account = ''"),
	't',
	'the gap is on record');
like($server->log_text, qr/WARNING:  stripe_lifecycle cannot read Stripe's events from/,
	'and in the log');
runs_once('the next run');
ok(defined reconciled()->{gap_from}, 'it stays on record');
like($server->health('reconciliation'),
	qr/^critical: events from .* to .* were gone from Stripe before they could be read$/,
	'and health() shows it ...');
$server->sql('UPDATE stripe_lifecycle.reconcile_state SET gap_from = NULL, gap_to = NULL');
like($server->health('reconciliation'),
	qr/^ok: equal to Stripe up to /, '... until somebody has seen to it');
foreach my $case ([ '5 h', 'warning' ], [ '2 d', 'critical' ])
{
	like(
		$server->value(
			"BEGIN;
			 UPDATE stripe_lifecycle.reconcile_state SET proven_until = now() - interval '$case->[0]';
			 SELECT status FROM stripe_lifecycle.health() WHERE check_name = 'reconciliation';
			 ROLLBACK"),
		qr/^$case->[1]$/, "a lag of $case->[0]: $case->[1]");
}

# The same of an event that could not be taken in for so long.
sub gaps_announced
{
	return scalar(() = $server->log_text =~ /cannot read Stripe's events from/g);
}
my $gaps = gaps_announced();
$server->sql(
	q{UPDATE stripe_lifecycle.reconcile_state SET gap_from = NULL, gap_to = NULL,
		failing = 1, failing_error = '{}', failing_since = now() - interval '40 d',
		retry_from = now() - interval '40 d', retry_at = now() + interval '1 h'
	  WHERE account = ''});
runs_once('a run that tries an event of forty days ago');
is( $server->value(
		"SELECT (now() - gap_from)::text ~ '^40 days' AND (now() - gap_to)::text ~ '^30 days'
			AND failing = 0 AND retry_from IS NULL AND proven_until = cursor_created
		   FROM stripe_lifecycle.reconcile_state WHERE account = ''"),
	't',
	'gives it up: a gap is on record');
runs_once('the next run');
is(gaps_announced(), $gaps + 1, 'it is announced once');
$server->sql('UPDATE stripe_lifecycle.reconcile_state SET gap_from = NULL, gap_to = NULL');

#
# A look at payments that do not end
#

$server->configure('stripe_lifecycle.reconcile_interval = 0',
	'stripe_lifecycle.watch_after = 1s');
eventually(sub { $server->health('reconciliation') },
	'ok: off: missed webhooks are not looked for', 'switched off, says health()');
eventually(sub { $server->value('SHOW stripe_lifecycle.watch_after') }, '1s', 'watch soon');
sleep 0.5;
my $stuck = $server->create_payment;
$server->intent_known($stuck);
sub watch_note { return $server->request($stuck, 'create')->{watch_note} // ''; }
eventually(\&watch_note, qr/^no event is missing.*requires_payment_method/,
	'a payment that waits for its customer');
my ($look) = grep { $_->{method} eq 'GET' } @{ $server->attempts($stuck) };
is("$look->{http_status} $look->{result}", '200 succeeded', 'the look is recorded');
$stripe->pay($server->payment($stuck, 'client_secret'), 'pm_card_visa');
eventually(\&watch_note, qr/^an event is missing.*succeeded/, 'a payment whose webhook was lost');
is($server->state($stuck), 'created', 'the answer to a look moves nothing');
ok( $server->value(
		"SELECT watch_at - now() > interval '1 s' FROM stripe_lifecycle.api_requests
		  WHERE payment_id = '$stuck' AND operation = 'create'") eq 't',
	'the next look is later');
ok(defined reconciled()->{rewind_to}, 'the next run is to go back');

$server->configure('stripe_lifecycle.reconcile_interval = 1h');
eventually(sub { $server->state($stuck) },
	'succeeded', 'reconciliation, switched on, runs at once and finds the event');
eventually(
	sub {
		$server->sql("UPDATE stripe_lifecycle.api_requests SET watch_at = now()
			WHERE watch_at IS NOT NULL");
		$server->sql('SELECT stripe_lifecycle.wake_worker()');
		sleep 0.1;
		$server->value("SELECT count(*) FROM stripe_lifecycle.api_requests r
			JOIN stripe_lifecycle.payments p ON p.id = r.payment_id
			WHERE watch_at IS NOT NULL AND state IN ('succeeded', 'failed')");
	},
	0,
	'payments that have ended are not watched');
is(scalar(grep { $_->{method} eq 'GET' }
		@{ $server->rows('SELECT * FROM stripe_lifecycle.api_attempts') }),
	scalar(grep { $_->{method} eq 'GET' && $_->{path} =~ m{^/v1/payment_intents/} }
		@{ $stripe->ledger->{requests} }),
	'every look is on record');

#
# In another database, without payments: no worker
#

$server->sql('CREATE DATABASE idle');
$server->sql('CREATE EXTENSION stripe_lifecycle', 'idle');
$server->configure('stripe_lifecycle.reconcile_interval = 1s',
	'stripe_lifecycle.watch_after = 15min');
$pages = event_pages();
eventually(sub { event_pages() }, sub { $_[0] > $pages }, 'one database reads events');
eventually(sub { $server->workers('idle') }, 0, 'an idle one has no worker');
sleep 1.5;
is($server->workers('idle'), 0, 'and none comes back');
$server->disconnect('idle');
$server->sql('DROP DATABASE idle');

$server->audit_is_sound;
$server->stop;
unlike($server->log_text, qr/a secret of the trigger.*not be taken in|PANIC|TRAP|segfault/,
	'no process crashed');

done_testing();
