# What is refused for a card number leaves nothing in the log, also where nothing
# redacts the log; what Stripe says is stored redacted; and what the redaction
# does where the library is not preloaded.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StripeLifecycle;

my $CARD = '4242 4242-4242 4242';
my $found = qr/4242[ -]?4242/;

# Every call that takes a text, with a card number in it; $$ stands for a payment.
my @calls = (
	(
		map { "create_payment(1, 'usd', 'k', $_)" }
		  "description => '$CARD'", "customer => '$CARD'", "receipt_email => '$CARD'",
		"capture_method => '$CARD'", "decline_policy => '$CARD'", "stripe_account => '$CARD'",
		"metadata => '{\"a\": \"$CARD\"}'", "metadata => '{\"$CARD\": \"a\"}'",
		"params => '{\"a\": [{\"b\": 4242424242424242}]}'",
		"params => '{\"payment_method_data\": {\"card\": {\"number\": \"$CARD\"}}}'"),
	"create_payment(1, '$CARD', 'k')",
	"create_payment(1, 'usd', '$CARD')",
	"confirm_payment(\$\$, '{\"a\": \"$CARD\"}')",
	"cancel_payment(\$\$, '$CARD')",
	"pause_worker('$CARD')",
	"retry_request(1, '$CARD')",
	"replay_event('evt_1', '$CARD')",
	"replay_event('$CARD')",
	"resolve_conflict('evt_1', 'dismiss', '$CARD')");

# A test: all of these are refused, and the log says so and no more.
sub are_refused
{
	my ($server, $name) = @_;
	my $id = $server->create_payment;
	my @statements = (
		(map { 'SELECT stripe_lifecycle.' . s/\$\$/'$id'/r } @calls),
		map {
			"INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency, $_)
			 VALUES (gen_random_uuid(), 'plain', 1, 'usd', "
			  . (/metadata|params/ ? "'{\"a\": \"$CARD\"}'" : "'$CARD'") . ')'
		} qw(description customer receipt_email stripe_account metadata params));

	foreach my $statement (@statements)
	{
		my $length = $server->log_length;
		my $error = $server->error($statement);
		my $log = $server->log_text($length);

		fails_with($error, 'SL019', qr/must not contain (?:a card number|card data)/, "$name: $statement");
		unlike($error->{text} =~ s/^LINE.*//mr, $found, "$name: the client is not told the number");
		like($log, qr/ERROR:  .*must not contain/, "$name: it is in the log");
		unlike($log, qr/$found|STATEMENT|CONTEXT/, "$name: without the statement");
	}
	return;
}

#
# Preloaded, with the redaction off
#

my $stripe = StripeLifecycle::StandIn->new(seed => 21);
my $server = StripeLifecycle->new(
	'preloaded', $stripe,
	conf => q{
stripe_lifecycle.log_redaction = off
stripe_lifecycle.worker_linger = 60s
stripe_lifecycle.retry_base_delay = 50
});
are_refused($server, 'redaction off');
is($server->value("SELECT count(*) FROM stripe_lifecycle.payments p WHERE p::text ~ '4242'"),
	0, 'no payment has it');

# A refusal of Stripe's repeats what it was sent.
my $id = $server->create_payment(
	params => { confirm => JSON::PP::true, payment_method => 'sk_live_' . 'TapKeyInTheWrongField1' });
eventually(sub { $server->request($id)->{status} }, 'rejected', 'a refusal that quotes');
foreach my $place (
	$server->payment($id, 'last_error'), $server->request($id)->{last_error},
	$server->attempts($id))
{
	unlike(JSON::PP->new->encode($place), qr/TapKey/, 'a key in an answer of Stripe is not stored');
}
like($server->payment($id, 'last_error')->{message}, qr/No such PaymentMethod: 'sk_live_\*+'/,
	'the rest of the message is');

#
# With the redaction, and all statements logged
#

$server->configure(
	'stripe_lifecycle.log_redaction = on', 'log_statement = all',
	'log_min_duration_statement = 0');
eventually(
	sub {
		$server->value("SELECT current_setting('stripe_lifecycle.log_redaction') || current_setting('log_statement')");
	},
	'onall', 'the session knows');
my $length = $server->log_length;
$id = $server->create_payment(params => { setup_future_usage => 'off_session' });
$server->intent_known($id);
my $secret = $server->payment($id, 'client_secret');
my ($key) = $secret =~ /_secret_(.*)/;
$stripe->pay($secret, 'pm_card_visa');
my ($event) = grep { $_->{type} eq 'payment_intent.succeeded' } $stripe->pull;

like($event->{bytes}, qr/\Q$key\E/, 'a webhook has the client secret');
is($server->ingest($event->{bytes}, sign($event->{bytes})), 'applied', 'taken in as bytes');
is( $server->value(
		sprintf 'SELECT stripe_lifecycle.ingest_webhook(%s::text, %s)',
		quote($event->{bytes}), quote(sign($event->{bytes}))),
	'duplicate',
	'and as text');
my $log = $server->log_text($length);
like($log, qr/statement: SELECT stripe_lifecycle\.ingest_webhook\('\\x7b.*2a2a2a/, 'both are in the log: bytes');
like($log, qr/statement: SELECT stripe_lifecycle\.ingest_webhook\(E'.*_secret_\*{8}/s, 'both are in the log: text');
is(index($log, $key), -1, 'no client secret');
is(index($log, unpack 'H*', $key), -1, 'nor in hexadecimal digits');
is($server->payment($id, 'client_secret'), undef, 'a payment that has ended has none');
is( $server->value(
		"SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE payload::text ~ '_secret_'"),
	0,
	'and no stored event does');
$server->stop;

#
# Not preloaded
#

$server = StripeLifecycle->new('alone', $stripe, start => 0);
$server->node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$server->start;
$server->sql('CREATE EXTENSION stripe_lifecycle');
are_refused($server, 'not preloaded');

# The redaction begins where the session loads the library; it is no business
# of other sessions.
$server->configure("log_statement = all");
eventually(sub { $server->value('SHOW log_statement') }, 'all', 'statements are logged');
$server->disconnect;
my $other = StripeLifecycle::Session->new($server->node, 'postgres');
$length = $server->log_length;
$other->run("SELECT 'sk_live_TapKey' AS before");
$other->run("LOAD 'stripe_lifecycle'");
$other->run("SELECT 'sk_live_TapKey' AS after");
$other->run("SELECT 'sk_live_TapKey', 1 / 0 AS failed");
$log = $server->log_text($length);
like($log, qr/statement: SELECT 'sk_live_TapKey' AS before/, 'before the library is loaded');
like($log, qr/statement: SELECT 'sk_live_\*{6}' AS after/, 'after that');
like($log, qr/Statement, redacted: SELECT 'sk_live_\*{6}', 1 \/ 0 AS failed/, 'errors, too');
unlike($log, qr/TapKey(?!' AS before)/, 'and nothing else');
$other->close;

# From the beginning of every session
$server->configure("session_preload_libraries = 'stripe_lifecycle'");
$other = StripeLifecycle::Session->new($server->node, 'postgres');
$length = $server->log_length;
$other->run("SELECT 'sk_live_TapKey'");
like($server->log_text($length), qr/statement: SELECT 'sk_live_\*{6}'/, 'session_preload_libraries');
$other->close;

$server->stop;
done_testing();
