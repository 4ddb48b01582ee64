# Logical replication: a subscriber gets all rows past its guards, sends nothing, takes no local writes,
# and can take over. What a trigger does in the apply worker gets no leave.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Utils;
use JSON::PP;
use SealedTrail;
use StripeLifecycle;
use Test::More;

my $stripe = StripeLifecycle::StandIn->new(seed => 35);
my $conf = "wal_level = logical\nmax_replication_slots = 20\nmax_wal_senders = 20\nmax_logical_replication_workers = 10\n";
my $publisher = StripeLifecycle->new('publisher', $stripe, conf => $conf);
my $subscriber = StripeLifecycle->new('subscriber', $stripe, conf => $conf);
my @TABLES = qw(payments payment_transitions webhook_events api_requests api_attempts
  reconcile_state operator_actions audit_checkpoints);

# of what was done on the subscriber before it became one
my $PAUSED_BEFORE = 'not to send anything';

my $key_file = "$publisher->{dir}/checkpoint_key";

my $key = make_key();

StripeLifecycle::write_secret($key_file, $key);
$publisher->configure("stripe_lifecycle.checkpoint_key_file = '$key_file'", 'stripe_lifecycle.checkpoint_interval = 1s');

# rows before the subscription and after it, of every kind
sub live
{
	my ($name) = @_;
	my $id = $publisher->create_payment(idempotency_key => $name);

	$publisher->intent_known($id, "$name: the publisher sends");
	$stripe->pay($publisher->payment($id, 'client_secret'), 'pm_card_visa');
	eventually(sub { $publisher->deliver_webhooks($stripe); $publisher->state($id) }, 'succeeded', "$name: paid");
	return $id;
}

sub checksums
{
	my ($server, $database) = @_;

	return $server->sql(join(";\n",
		map { "SELECT '$_', count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM stripe_lifecycle.$_ t
			WHERE to_jsonb(t) ->> 'reason' IS DISTINCT FROM '$PAUSED_BEFORE'" }
			@TABLES), $database);
}

sub caught_up
{
	my ($name, $database) = @_;

	return eventually(
		sub {
			my ($there, $here) = (checksums($publisher), checksums($subscriber, $database));

			$there eq $here ? 'identical' : "$there\n--\n$here";
		},
		'identical', $name);
}

# What must not go through on a subscriber, whoever tries.
sub guarded
{
	my ($payment, $database) = @_;
	my %refused = (
		"UPDATE stripe_lifecycle.payments SET state = 'failed'" => 'SL007',
		"UPDATE stripe_lifecycle.payments SET last_event_id = 'x'" => 'SL007',
		"INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency)
			VALUES (gen_random_uuid(), 'by hand', 1, 'usd')" => 'SL007',
		"INSERT INTO stripe_lifecycle.payment_transitions SELECT payment_id, seq + 10, from_state, to_state, at, source,
			event_id, event_type, event_created, role, note, amount, currency, livemode, hash
			FROM stripe_lifecycle.payment_transitions" => 'SL007',
		'DELETE FROM stripe_lifecycle.payment_transitions' => 'SL005',
		'TRUNCATE stripe_lifecycle.webhook_events' => 'SL005',
		'UPDATE stripe_lifecycle.api_requests SET next_attempt_at = now()' => 'SL007',
		$subscriber->create_payment_sql(idempotency_key => 'local') => 'SL007',
		"SELECT stripe_lifecycle.cancel_payment('$payment')" => 'SL018|SL007',
		'SELECT stripe_lifecycle.resume_worker()' => 'SL007');
	my $body = '{"id": "evt_local", "object": "event", "type": "charge.succeeded", "created": 1, "livemode": false,
		"data": {"object": {"id": "ch_1", "object": "charge"}}}';

	$refused{ $subscriber->ingest_sql($body, StripeLifecycle::sign($body)) } = 'SL007';
	foreach my $sql (sort keys %refused)
	{
		foreach my $role ('origin', 'replica')
		{
			$subscriber->sql("SET session_replication_role = $role", $database);
			like($subscriber->error($sql, $database)->{sqlstate}, qr/^(?:$refused{$sql})$/,
				"$role: refused: " . substr($sql, 0, 60));
		}
	}
	$subscriber->sql('RESET session_replication_role', $database);
	return;
}

sub requests_at_stripe { return scalar @{ $stripe->ledger->{requests} }; }

my $first = live('before');
my $waiting = $publisher->create_payment(idempotency_key => 'waits');
$publisher->intent_known($waiting);

# ---------- everything is published, worker_state too ----------

$publisher->sql('CREATE PUBLICATION everything FOR TABLES IN SCHEMA stripe_lifecycle');
$subscriber->sql(sprintf "CREATE SUBSCRIPTION everything CONNECTION '%s' PUBLICATION everything",
	$publisher->node->connstr('postgres') =~ s/'/''/gr);
caught_up('the first copy of all tables');
eventually(sub { $subscriber->value("SELECT string_agg(srrelid::regclass::text, ' ') FROM pg_subscription_rel WHERE srsubstate <> 'r'") },
	'', 'no table is left behind');
is($subscriber->value('SELECT count(*) FROM stripe_lifecycle.worker_state'), 1, 'one row of worker_state');
my $second = live('after');
$publisher->sql("SELECT stripe_lifecycle.cancel_payment('$waiting')");
eventually(sub { $publisher->deliver_webhooks($stripe); $publisher->state($waiting) }, 'failed', 'one is canceled');
$publisher->sql("SELECT stripe_lifecycle.pause_worker('a break')");
$publisher->sql('SELECT stripe_lifecycle.resume_worker()');
caught_up('what comes after it');
is($subscriber->value('SELECT count(*) FROM stripe_lifecycle.verify_audit()'), 0, 'the trail is proven there');
eventually(sub { $subscriber->value('SELECT count(*) FROM stripe_lifecycle.audit_checkpoints') },
	sub { $_[0] > 0 }, 'sealed too');
is($subscriber->value('SELECT count(*) FROM stripe_lifecycle.verify_checkpoints(public_keys => \'' . public_key($key) . '\')'), 0,
	'and its seals are whole');
is($subscriber->value("SELECT source || role FROM stripe_lifecycle.payment_transitions WHERE payment_id = '$second' AND seq = 1"),
	$publisher->value("SELECT source || role FROM stripe_lifecycle.payment_transitions WHERE payment_id = '$second' AND seq = 1"),
	'no row was added to it');
like($subscriber->row("SELECT * FROM stripe_lifecycle.payment_status('$second')")->{state}, qr/^succeeded$/,
	'payment_status() reads it');
guarded($second);

# it sends nothing, however due a request is and however often it is asked
my $calls = requests_at_stripe();
$publisher->configure("stripe_lifecycle.databases = 'none'");
eventually(sub { $publisher->workers }, 0, 'the publisher has no worker now');
my $queued = $publisher->create_payment(idempotency_key => 'queued');
eventually(sub { $subscriber->value("SELECT count(*) FROM stripe_lifecycle.api_requests
	WHERE status = 'queued' AND payment_id = '$queued'") }, 1, 'a due request is on the subscriber');
$subscriber->sql('SELECT stripe_lifecycle.wake_worker()');
eventually(sub { $subscriber->value('SELECT paused FROM stripe_lifecycle.worker_state') }, 't', 'its worker pauses');
isnt($subscriber->value(q{SELECT status FROM stripe_lifecycle.health() WHERE check_name = 'paused'}), 'ok', 'health() says so');
$subscriber->sql('UPDATE stripe_lifecycle.worker_state SET paused = false, system_identifier = NULL, database_oid = NULL');
my $log = $subscriber->log_length;
$subscriber->sql('SELECT stripe_lifecycle.wake_worker()');
eventually(sub { $subscriber->value('SELECT paused_reason FROM stripe_lifecycle.worker_state') },
	qr/logical replication/, 'and pauses again, even if it is made to forget whose copy it is');
like($subscriber->log_text($log), qr/has paused this database.*come from another server by logical replication/s, 'the log says why');
is(requests_at_stripe(), $calls, 'nothing was sent');

# a trigger of somebody's in the apply worker is not replication
$subscriber->sql(q{
	CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.idempotency_key = 'trap' THEN
			UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE id = NEW.id;
		END IF;
		RETURN NULL;
	END $$;
	CREATE TRIGGER meddle AFTER INSERT ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION meddle();
	ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER meddle});
$log = $subscriber->log_length;
my $trap = $publisher->create_payment(idempotency_key => 'trap');
eventually(sub { $subscriber->log_text($log) }, qr/ERROR:  cannot write to table "stripe_lifecycle.payments"/,
	'what a trigger writes in the apply worker is refused');
$subscriber->sql('DROP TRIGGER meddle ON stripe_lifecycle.payments');
caught_up('without the trigger it goes on');
is($subscriber->state($trap), 'created', 'the payment is what it was');

# ---------- a subscription without worker_state, in another database ----------

$publisher->sql('CREATE PUBLICATION tables FOR TABLE ' . join ', ', map { "stripe_lifecycle.$_" } @TABLES);
$subscriber->sql('CREATE DATABASE second TEMPLATE template0');
$subscriber->sql("CREATE EXTENSION stripe_lifecycle; SELECT stripe_lifecycle.pause_worker('$PAUSED_BEFORE')", 'second');
$subscriber->sql(sprintf("CREATE SUBSCRIPTION tables CONNECTION '%s' PUBLICATION tables",
	$publisher->node->connstr('postgres') =~ s/'/''/gr), 'second');
caught_up('the same by tables', 'second');
is($subscriber->value('SELECT paused_reason FROM stripe_lifecycle.worker_state', 'second'), $PAUSED_BEFORE,
	'which was paused before');
$subscriber->sql('UPDATE stripe_lifecycle.worker_state SET paused = false; SELECT stripe_lifecycle.wake_worker()', 'second');
eventually(sub { $subscriber->value('SELECT paused_reason FROM stripe_lifecycle.worker_state', 'second') },
	qr/logical replication/, 'its worker pauses too');
guarded($second, 'second');
is(requests_at_stripe(), $calls, 'nothing was sent from there either');

# ---------- it takes over ----------

$publisher->stop;
$subscriber->sql($_, 'second')
  foreach ('ALTER SUBSCRIPTION tables DISABLE', 'ALTER SUBSCRIPTION tables SET (slot_name = NONE)', 'DROP SUBSCRIPTION tables');
is($subscriber->value('SELECT paused FROM stripe_lifecycle.worker_state', 'second'), 't', 'it stays paused after that');

# until resume_worker() has moved the sequences on, what is new would be put among what is sealed
my $early = sub {
	my ($type, $payment) = @_;
	my $intent = $subscriber->value("SELECT coalesce(payment_intent_id, 'pi_early') FROM stripe_lifecycle.payments
		WHERE id = '$payment'", 'second');
	my $event = JSON::PP->new->encode({
		id => "evt_$payment", object => 'event', type => "payment_intent.$type", created => 1_800_000_000, livemode => JSON::PP::false,
		data => { object => { id => $intent, object => 'payment_intent', status => $type, amount => 2000, currency => 'eur', livemode => JSON::PP::false,
			metadata => { stripe_lifecycle_payment_id => $payment } } } });
	return $subscriber->ingest_sql($event, StripeLifecycle::sign($event));
};
# (what was refused above has drawn some numbers)
$subscriber->sql("SELECT setval('stripe_lifecycle.payment_transitions_position_seq', 1, false)", 'second');
fails_with($subscriber->error($early->('processing', $trap), 'second'), 'SL007', qr/have not been taken over.*call stripe_lifecycle.resume_worker/s,
	'an event before it is taken over');
fails_with($subscriber->error($subscriber->create_payment_sql(idempotency_key => 'too early'), 'second'), 'SL007',
	qr/have not been taken over/, 'a payment before it is taken over');
$subscriber->sql('SELECT stripe_lifecycle.resume_worker()', 'second');
$subscriber->intent_known($queued, 'after resume_worker() what was queued is sent', 'second');
my $own = $subscriber->create_payment(database => 'second');
$subscriber->intent_known($own, 'payments are made', 'second');
is($subscriber->error('INSERT INTO stripe_lifecycle.payment_transitions SELECT gen_random_uuid(), 1, NULL, to_state, at, source,
		NULL, NULL, NULL, role, NULL, amount, currency, NULL, hash FROM stripe_lifecycle.payment_transitions LIMIT 1', 'second')->{sqlstate},
	'SL004', 'the guards are what they are anywhere');
$subscriber->intent_known($trap, 'all that was queued is sent', 'second');
is($subscriber->value($early->('processing', $trap), 'second'), 'applied', 'and events are taken in');
$subscriber->audit_is_sound('the trail goes on', 'second');
is($subscriber->value('SELECT count(*) - count(DISTINCT position) FROM stripe_lifecycle.payment_transitions', 'second'), 0,
	'no position is there twice');
is($subscriber->value('SELECT count(*) FROM stripe_lifecycle.verify_checkpoints(public_keys => \'' . public_key($key) . '\')', 'second'), 0,
	'no seal is broken by it');

$subscriber->stop;
done_testing();
