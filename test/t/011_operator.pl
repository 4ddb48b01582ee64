
# What an operator sees and does while the worker is at work: health() over
# files, keys and workers; counters that survive a worker; requests sent again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use Test::More;

use StripeLifecycle;

my $stripe = StripeLifecycle::StandIn->new(seed => 11);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
stripe_lifecycle.worker_linger = 60s
stripe_lifecycle.retry_base_delay = 50
stripe_lifecycle.retry_max_delay = 200
});

# One check of health(): its status, its detail.
sub health
{
	my ($check) = @_;
	my $row = $server->row(
		"SELECT * FROM stripe_lifecycle.health() WHERE check_name = '$check'");

	return ("$row->{status}: $row->{detail}", $row->{hint});
}

sub stat_of
{
	my ($column) = @_;

	return $server->value(
		"SELECT $column FROM stripe_lifecycle.pg_stat_stripe_lifecycle");
}

my ($text, $hint);

#
# A server where all is well
#

is( $server->value(
		"SELECT string_agg(check_name || ' ' || status, ', ')
		   FROM stripe_lifecycle.health() WHERE status <> 'ok'"),
	'', 'nothing is wrong with a new server');
is((health('api_key'))[0], 'ok: a key of test mode', 'the key\'s mode is known');
is((health('webhook_secrets'))[0], 'ok: 1 active', 'so is the number of secrets');
is((health('worker'))[0], 'ok: not running, not needed', 'no work, no worker');

my $id = $server->create_payment;
$server->intent_known($id);
is((health('worker'))[0], 'ok: running', 'a worker at work');
is((health('moved'))[0], 'ok: the queue was last served by this server',
	'it has left its name');
eventually(sub { stat_of('succeeded') }, 1, 'the call is counted');
is(stat_of('http_2xx || \' \' || attempts || \' \' || retries'), '1 1 0', 'by its status');
is(stat_of('(SELECT sum(n) FROM unnest(latency_histogram) AS n)'), 1, 'and its time');
is(stat_of('last_success > now() - interval \'1 min\''), 't', 'and when');
$server->deliver_webhooks($stripe);
is(stat_of('webhooks_recorded'), 1, 'so is the webhook');
like((health('webhooks'))[0], qr/^ok: the last one came \d+ s ago$/, 'health knows when');

#
# Secrets: what is wrong with the files, and nothing of what is in them
#

foreach my $case (
	[ undef, undef, qr/could not be opened: No such file or directory/, 'missing' ],
	[ $API_KEY, 0644, qr/needs mode 0600 or less/, 'open to others' ],
	[ '', undef, qr/holds no secret/, 'empty' ],
	[ 'pk_test_public', undef, qr/malformed in line 1/, 'no secret key' ],
	[ "$API_KEY\nsk_test_another", undef, qr/holds too many secrets/, 'two keys' ])
{
	my ($content, $mode, $pattern, $name) = @$case;

	defined $content
	  ? write_secret($server->{api_key_file}, $content, $mode)
	  : unlink $server->{api_key_file};
	($text, $hint) = health('api_key');
	like($text, qr/^critical: .*$pattern/, "API key file $name");
	unlike($text, qr/sk_|pk_|\Q$server->{dir}\E/, 'neither content nor path is shown');
	like($hint, qr/stripe_lifecycle.api_key_file/, 'but what to do');
}
write_secret($server->{api_key_file}, "$API_KEY\n");
is((health('api_key'))[0], 'ok: a key of test mode', 'mended');

write_secret($server->{webhook_secret_file}, "label whsec_good\nhush_no_secret\n");
($text, $hint) = health('webhook_secrets');
like($text, qr/^critical: The file is malformed in line 2\.$/, 'a bad line of the webhook secrets');
unlike($text, qr/hush|whsec/, 'is not quoted');
write_secret($server->{webhook_secret_file}, "$WEBHOOK_SECRET\nnew whsec_other\n");
is((health('webhook_secrets'))[0], 'ok: 2 active', 'two secrets');
write_secret($server->{webhook_secret_file}, "$WEBHOOK_SECRET\n");

# A live key beside test payments
write_secret($server->{api_key_file}, "rk_live_tap\n");
is((health('api_key'))[0], 'ok: a key of live mode', 'a live key');
like((health('mode'))[0], qr/^critical: the API key is of live mode, but payments of the other/,
	'does not fit the payments');
write_secret($server->{api_key_file}, "$API_KEY\n");
is((health('mode'))[0], 'ok: key and payments agree', 'this one does');

#
# A queue that nobody serves
#

unlink $server->{api_key_file};
$server->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE backend_type = 'stripe_lifecycle worker'");
eventually(sub { $server->workers }, 0, 'without a key the worker leaves');
$id = $server->create_payment;
is((health('queue'))[0], 'ok: 1 queued, 0 in flight', 'a request waits');
foreach my $case (
	[ '2 min', 'warning', qr/the oldest has been due for 00:02:0/ ],
	[ '2 h', 'critical', qr/the oldest has been due for 02:00:0/ ])
{
	$server->sql("UPDATE stripe_lifecycle.api_requests
		SET next_attempt_at = now() - interval '$case->[0]' WHERE payment_id = '$id'");
	like((health('queue'))[0], qr/^$case->[1]: 1 queued, 0 in flight; $case->[2]/,
		"after $case->[0] health has a $case->[1]");
	eventually(
		sub { (health('worker'))[0] },
		'critical: work is waiting and no worker is running',
		'and so it is with the worker');
}
like((health('stuck_payments'))[0], qr/^ok/, 'the payment is not old enough to be stuck');
write_secret($server->{api_key_file}, "$API_KEY\n");
$server->reload;
$server->intent_known($id, 'with a key the request is sent');
eventually(sub { (health('queue'))[0] }, 'ok: 0 queued, 0 in flight', 'and all is well');

#
# Retries
#

# Stripe refuses for good; the operator has it sent again, under a new key
$stripe->fault(kind => '400', count => 1);
$id = $server->create_payment;
eventually(sub { $server->request($id)->{status} }, 'rejected', 'Stripe refuses');
my $dead = $server->row("SELECT * FROM stripe_lifecycle.dead_requests WHERE payment_id = '$id'");
like($dead->{why}, qr/^Stripe refused: /, 'the dead request says why');
like($dead->{what_to_do}, qr/retry_request/, 'and what to do');
is(stat_of('last_error'), 'http_400', 'the class of the last error');
like((health('dead_requests'))[0], qr/^warning: 1$/, 'health counts it');
cmp_ok($server->value("SELECT stripe_lifecycle.retry_request($dead->{id}, 'mended')"),
	'>', $dead->{id}, 'it is asked anew');
$server->intent_known($id, 'and made');
is(scalar($stripe->intents_of($id)), 1, 'one PaymentIntent');
is($server->request($id)->{idempotency_key}, "stripe_lifecycle-$id-create-2", 'under a key of its own');
is($server->value('SELECT count(*) FROM stripe_lifecycle.dead_requests'), 0, 'nothing is dead');

# Nobody knows what became of a request: the same bytes, the same key
$id = $server->create_payment;
my $intent = $server->intent_known($id);
my $request = $server->request($id);
$server->sql("BEGIN; SELECT stripe_lifecycle.pause_worker('a test');
	UPDATE stripe_lifecycle.api_requests SET status = 'unknown', lookup_at = 'infinity' WHERE id = $request->{id};
	SELECT stripe_lifecycle.retry_request($request->{id}); COMMIT");
like((health('paused'))[0], qr/^warning: paused by \w+ since .*: a test$/, 'paused, says health');
is($server->request($id)->{status}, 'queued', 'it waits while the worker is paused');
$server->sql('SELECT stripe_lifecycle.resume_worker()');
eventually(sub { $server->request($id)->{status} }, 'succeeded', 'an unknown request is sent again');
my @arrivals = $stripe->arrivals($request->{idempotency_key});
is(scalar(@arrivals), 2, 'it arrived twice');
is($arrivals[0]{body}, $arrivals[1]{body}, 'with the same bytes');
is(scalar($stripe->intents_of($id)), 1, 'and made one PaymentIntent');
is($server->payment($id, 'payment_intent_id'), $intent, 'the one that was known');
is( $server->value("SELECT string_agg(action, ' ' ORDER BY id) FROM stripe_lifecycle.operator_actions"),
	'retry_request pause_worker retry_request resume_worker', 'all of it is on record');

#
# Counters outlive the worker
#

my $before = stat_of('attempts');
my $starts = stat_of('worker_starts');
my $failures = stat_of('worker_failures');
$server->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'stripe_lifecycle worker'");
eventually(sub { $server->workers }, 0, 'the worker is gone');
is(stat_of('attempts'), $before, 'its numbers are not');
eventually(sub { stat_of('worker_failures') }, $failures + 1, 'its end is counted');
$stripe->fault({ kind => 'drop_after', count => 1 }, { kind => '503', count => 1 },
	{ kind => '429', count => 1 });
$id = $server->create_payment;
$server->intent_known($id, 'the next worker goes on');
eventually(sub { stat_of('attempts') }, $before + 4, 'and counts on');
cmp_ok(stat_of('worker_starts'), '>', $starts, 'its start too');
is(stat_of("transport_errors || ' ' || http_5xx || ' ' || http_429 || ' ' || retry"),
	'1 1 1 3', 'each failed attempt by its kind');
is(stat_of('retries'), 4, 'three retries, and the one that the operator asked for');
is($server->value("SELECT sum(calls) FROM stripe_lifecycle.stats_latency()"),
	$before + 4, 'the histogram has them all');

# The extension being dropped and created again takes nothing from the server
$server->restart;
is(stat_of('attempts'), 0, 'a restarted server begins anew');
$server->audit_is_sound;
$server->stop;

done_testing();
