
# What is older than its retention is removed by the worker, bit by bit; what
# somebody may still need stays, and so does the audit trail.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use Test::More;

use StripeLifecycle;

my $stripe = StripeLifecycle::StandIn->new(seed => 47);
my $server = StripeLifecycle->new('main', $stripe);
my @guarded = qw(payments payment_transitions webhook_events api_requests api_attempts);

sub count
{
	my ($from) = @_;

	return $server->value("SELECT count(*) FROM stripe_lifecycle.$from");
}

# Runs statements that no guard sees: the past has to be made.
sub behind_the_guards
{
	my (@statements) = @_;

	$server->sql(
		join ";\n", 'BEGIN',
		(map { "ALTER TABLE stripe_lifecycle.$_ DISABLE TRIGGER stripe_lifecycle_guard" } @guarded),
		@statements,
		(map { "ALTER TABLE stripe_lifecycle.$_ ENABLE ALWAYS TRIGGER stripe_lifecycle_guard" } @guarded),
		'COMMIT');
	return;
}

# Moves all rows of a condition into the past.
sub age
{
	my ($days, %conditions) = @_;
	my %times = (
		payments => [qw(created_at updated_at finished_at)],
		webhook_events => [qw(created received_at applied_at)],
		api_requests => [qw(created_at finished_at)],
		api_attempts => [qw(started_at finished_at)]);

	behind_the_guards(
		map {
			my $table = $_;
			"UPDATE stripe_lifecycle.$table SET "
			  . join(', ', map { "$_ = $_ - interval '$days days'" } @{ $times{$table} })
			  . " WHERE $conditions{$table}"
		} sort keys %conditions);
	return;
}

# Has the worker go through the tables now; there may be none just then.
sub go_through
{
	my (@settings) = @_;

	$server->sql('UPDATE stripe_lifecycle.retention_state SET due_at = NULL, block = 0');
	$server->configure(@settings);
	$server->sql('SELECT stripe_lifecycle.wake_worker()');
	return;
}

sub pay
{
	my ($key) = @_;
	my $id = $server->create_payment(idempotency_key => $key);

	$server->intent_known($id);
	$stripe->pay($server->payment($id, 'client_secret'), 'pm_card_visa');
	$server->deliver_webhooks($stripe);
	is($server->state($id), 'succeeded', "$key has succeeded");
	return $id;
}

# Old events that say nothing to anybody, so that a table has many pages.
sub fill
{
	my ($n, $prefix, $outcome, $payload) = @_;

	behind_the_guards(
		"INSERT INTO stripe_lifecycle.webhook_events (event_id, type, created, livemode,
			outcome, source, received_at, payload)
		 SELECT '$prefix' || i, 'charge.updated', now() - interval '40 days', false,
			'$outcome', 'webhook', now() - interval '40 days', '$payload'
		   FROM generate_series(1, $n) i");
	return;
}

my $old = pay('old');
my $new = pay('new');
my $half = pay('half');
my $open = $server->create_payment(idempotency_key => 'open');
$server->intent_known($open);
my $declined = $server->create_payment(idempotency_key => 'declined');
$server->intent_known($declined);
$stripe->fault(kind => '400', route => 'POST /v1/payment_intents/:id/cancel', count => 1);
$stripe->pay($server->payment($declined, 'client_secret'), 'pm_card_chargeDeclined');
$server->deliver_webhooks($stripe);
is($server->state($declined), 'failed', 'one is declined');
eventually(sub { count("dead_requests WHERE payment_id = '$declined'") },
	1, 'and Stripe refuses to cancel it');

my $newest = $server->value(
	"SELECT event_id FROM stripe_lifecycle.webhook_events WHERE payment_id = '$new'
	  AND type = 'payment_intent.succeeded'");
my $is_old = "payment_id IN ('$old', '$half', '$open', '$declined')";

age(40, payments => "id <> '$new'", webhook_events => $is_old, api_requests => $is_old,
	api_attempts => "request_id IN (SELECT id FROM stripe_lifecycle.api_requests WHERE $is_old)");
# a request that came later keeps those before it
behind_the_guards(
	"INSERT INTO stripe_lifecycle.api_requests (payment_id, operation, method, path, body,
		idempotency_key, created_at, status, next_attempt_at, finished_at)
	 VALUES ('$half', 'cancel', 'POST', '/', '', 'later', now(), 'rejected', now(), now())");
fill(20000, 'evt_ignored', 'ignored', '{}');
fill(10, 'evt_parked', 'unmatched', '{}');
fill(3, 'evt_marked', 'unmatched',
	'{"data": {"object": {"metadata": {"stripe_lifecycle_payment_id": "x"}}}}');
fill(3, 'evt_conflict', 'conflict', '{}');
# old at Stripe, but it came late; and the reverse
behind_the_guards(
	"INSERT INTO stripe_lifecycle.webhook_events (event_id, type, created, livemode, outcome,
		source, received_at, payload)
	 VALUES ('evt_late', 'charge.updated', now() - interval '40 days', false, 'ignored',
			'webhook', now(), '{}'),
		('evt_ahead', 'charge.updated', now(), false, 'ignored', 'webhook',
			now() - interval '40 days', '{}')");

my $trail = count('payment_transitions');
my $transitions = $server->value(
	'SELECT md5(string_agg(t::text, \'\' ORDER BY payment_id, seq))
	   FROM stripe_lifecycle.payment_transitions t');
my $actions = count('operator_actions');

#
# Nothing goes unless it is asked for, and not too early
#

is(count('webhook_events WHERE received_at < now() - interval \'35 days\'') > 20000,
	1, 'without a setting all stays');
my $mark = $server->log_length;
$server->configure("stripe_lifecycle.event_retention = '34d'");
eventually(sub { $server->log_text($mark) =~ /at least 35 days/ ? 'refused' : '' },
	'refused', 'a retention that Stripe could outlast is refused');
is($server->value('SHOW stripe_lifecycle.event_retention'), '0', 'and not taken');
is($server->error("DELETE FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_ignored1'")->{sqlstate},
	'SL005', 'by hand nothing goes, however old');

#
# Events
#

go_through("stripe_lifecycle.event_retention = '35d'");
eventually(sub { count("webhook_events WHERE event_id LIKE 'evt\\_ignored%'") },
	0, 'old events go');
eventually(sub { $server->value("SELECT finished_at IS NOT NULL AND block = 0
		FROM stripe_lifecycle.retention_state WHERE table_name = 'webhook_events'") },
	't', 'the table has been gone through');
is(count("webhook_events WHERE event_id LIKE 'evt\\_parked%'"), 0,
	'parked ones of others, too');
is(count("webhook_events WHERE event_id LIKE 'evt\\_marked%'"), 3,
	'not parked ones with a payment\'s id');
is(count("webhook_events WHERE outcome = 'conflict'"), 3, 'nor conflicts');
is(count("webhook_events WHERE event_id IN ('evt_late', 'evt_ahead')"), 2,
	'nor what is old by one clock alone');
is(count("webhook_events WHERE payment_id = '$old'"), 0,
	'nor is it a question of the payment');
is(count("webhook_events WHERE event_id = '$newest'"), 1, 'a new one is still known');
is(count('api_requests') > 5, 1, 'requests have a setting of their own');
is($server->value("SELECT removed >= 20010 FROM stripe_lifecycle.retention_state
	WHERE table_name = 'webhook_events'"), 't', 'it was counted');
is($server->value("SELECT due_at > now() + interval '23 hours' FROM stripe_lifecycle.retention_state
	WHERE table_name = 'webhook_events'"), 't', 'the next round is tomorrow');

#
# Requests
#

go_through("stripe_lifecycle.request_retention = '35d'");
eventually(sub { count("api_requests WHERE payment_id = '$old'") },
	0, 'old requests of an ended payment go');
is(count("api_attempts a WHERE NOT EXISTS (SELECT FROM stripe_lifecycle.api_requests r
	WHERE r.id = a.request_id)"), 0, 'with the records of their calls');
is(count("api_requests WHERE payment_id = '$new'"), 1, 'new ones stay');
is(count("api_requests WHERE payment_id = '$half'"), 2,
	'and old ones with a newer one of the same payment');
is(count("api_requests WHERE payment_id = '$open'"), 1,
	'and those of a payment that has not ended');
is(count("dead_requests WHERE payment_id = '$declined'"), 1,
	'and a cancellation that somebody has to look after');
for my $table (qw(api_requests api_attempts payments payment_transitions operator_actions))
{
	is($server->error("DELETE FROM stripe_lifecycle.$table")->{sqlstate},
		'SL005', "nobody else may delete from $table")
	  if count($table) > 0;
}

#
# What is for ever
#

is(count('payments'), 5, 'payments stay');
is(count('payment_transitions'), $trail, 'and so does the trail');
is( $server->value(
		'SELECT md5(string_agg(t::text, \'\' ORDER BY payment_id, seq))
		   FROM stripe_lifecycle.payment_transitions t'),
	$transitions, 'row for row');
is(count("verify_audit() WHERE problem <> 'row_differs'"), 0, 'which does not miss the events');
is(count('operator_actions'), $actions, 'nor does anything of the operators\' go');

#
# A trigger of others cannot use the occasion
#

$server->sql(q{
CREATE FUNCTION greedy() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	DELETE FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_greed2';
	RETURN OLD;
END $$;
CREATE TRIGGER greedy BEFORE DELETE ON stripe_lifecycle.webhook_events
	FOR EACH ROW WHEN (OLD.event_id = 'evt_greed1') EXECUTE FUNCTION greedy();
});
fill(2, 'evt_greed', 'ignored', '{}');
$mark = $server->log_length;
go_through();
eventually(sub { $server->log_text($mark) =~ /could not remove .* SQLSTATE SL005/ ? 'refused' : '' },
	'refused', 'its own deletion is refused, and with it the step');
is(count("webhook_events WHERE event_id LIKE 'evt\\_greed%'"), 2, 'nothing was removed');
$server->sql('DROP TRIGGER greedy ON stripe_lifecycle.webhook_events');
is($server->state($server->create_payment(idempotency_key => 'meanwhile')), 'created',
	'payments go on');

#
# The size is bounded
#

my @sizes;
for my $round (1 .. 4)
{
	fill(5000, "evt_round${round}_", 'ignored', '{}');
	go_through();
	eventually(sub { count("webhook_events WHERE event_id LIKE 'evt\\_round%'") },
		0, "round $round");
	$server->sql('VACUUM stripe_lifecycle.webhook_events');
	push @sizes, $server->value("SELECT pg_relation_size('stripe_lifecycle.webhook_events')
		+ pg_relation_size('stripe_lifecycle.webhook_events_pkey')");
}
cmp_ok($sizes[3], '<=', $sizes[1], "the table keeps its size (@sizes)");

#
# A copy is left alone, until it is taken into use
#

$server->configure('stripe_lifecycle.event_retention = 0');
fill(10, 'evt_of_both', 'ignored', '{}');
$server->disconnect;
eventually(sub { $server->node->psql('template1', 'CREATE DATABASE copied TEMPLATE postgres') }, 0, 'a copy');
$server->sql("$_", 'copied')
  foreach ('UPDATE stripe_lifecycle.retention_state SET due_at = NULL, block = 0',
	"UPDATE stripe_lifecycle.api_requests SET next_attempt_at = now() WHERE status = 'queued'");
$server->sql($server->create_payment_sql(idempotency_key => 'of the copy'), 'copied');
go_through("stripe_lifecycle.event_retention = '35d'");
my $of_both = "SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE event_id LIKE 'evt\\_of\\_both%'";
eventually(sub { $server->value($of_both) }, 0, 'from the original they are removed');
$server->sql('SELECT stripe_lifecycle.wake_worker()', 'copied');
eventually(sub { $server->value('SELECT paused FROM stripe_lifecycle.worker_state', 'copied') }, 't', 'the copy is paused');
eventually(sub { $server->workers }, 0, 'its worker has nothing to do');
is($server->value($of_both, 'copied'), 10, 'from the copy they are not');
$server->sql('SELECT stripe_lifecycle.resume_worker()', 'copied');
eventually(sub { $server->value($of_both, 'copied') }, 0, 'but after resume_worker()');

$stripe->stop;
$server->stop('fast');
done_testing();
