
# Under the server's default logging settings nothing of a webhook, a header, a
# secret, a key or a customer's particulars gets into the log, and what is
# refused leaves no trace in any table.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use StripeLifecycle;

# Put into every place from which something could leak.
my $MARK = 'CONFIDENTIAL';

my $stripe = StripeLifecycle::StandIn->new(seed => 6);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
stripe_lifecycle.worker_linger = 60s
stripe_lifecycle.retry_base_delay = 50
});

foreach my $setting (
	qw(log_min_messages log_min_error_statement log_statement
	log_parameter_max_length_on_error log_error_verbosity
	log_min_duration_statement))
{
	is( $server->value(
			"SELECT setting IS NOT DISTINCT FROM boot_val
			   FROM pg_settings WHERE name = '$setting'"),
		't',
		"$setting is the default");
}

# All headers and payloads that were handed in; none may be found later.
my @private = ($MARK, $API_KEY, $WEBHOOK_SECRET);

sub rows_of_all_tables
{
	return $server->value(
		join ' UNION ALL ',
		map { "SELECT '$_', count(*), max(xmin::text::bigint) FROM stripe_lifecycle.$_" }
		  qw(payments payment_transitions webhook_events api_requests
		  api_attempts worker_state));
}

# A test: this is refused, writes nothing, and the log does not tell of what.
sub is_refused
{
	my ($sql, $sqlstate, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = rows_of_all_tables();
	my $length = $server->log_length;
	my $error = $server->error($sql);
	my $log = $server->log_text($length);

	$server->sql('ROLLBACK') if $sql =~ /^BEGIN/;
	fails_with($error, $sqlstate, qr/./, "$name: refused");
	like($log, qr/ERROR/, "$name: the refusal is in the log");
	unlike($log, qr/STATEMENT|CONTEXT|\Q$MARK\E|v1=|whsec_\w/,
		"$name: without what was refused");
	is(rows_of_all_tables(), $before, "$name: nothing is written");
	return;
}

sub is_refused_webhook
{
	my ($body, $header, $sqlstate, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	push @private, $1 if defined $header && $header =~ /v1=(\w{16})/;
	is_refused($server->ingest_sql($body, $header), $sqlstate, $name);
	is_refused(
		sprintf('SELECT stripe_lifecycle.ingest_webhook(%s::text, %s)',
			quote($body), quote($header)),
		$sqlstate,
		"$name, as text");
	return;
}

#
# Webhooks that are refused
#

my $id = $server->create_payment(description => "$MARK in the description");
my $intent = $server->intent_known($id);
my $secret = $server->payment($id, 'client_secret');
push @private, $secret, $secret =~ /_secret_(.*)/;

$stripe->pay($secret, 'pm_card_visa');
my ($event) = grep { $_->{type} eq 'payment_intent.succeeded' } $stripe->pull;
my $body = $event->{bytes};
$body =~ s/"data":/"mark":"$MARK","data":/ or die 'no data in the event';
my $now = int time;

is_refused_webhook($body, sign($body, 'whsec_other'), 'SL021',
	'wrong secret');
is_refused_webhook("$body ", sign($body), 'SL021', 'altered body');
is_refused_webhook($body, sign($body, undef, $now - 1000), 'SL022', 'stale');
is_refused_webhook($body, sign($body, undef, $now + 1000), 'SL022', 'early');
is_refused_webhook($body, "$MARK", 'SL023', 'malformed header');
is_refused_webhook($body, "t=$now", 'SL023', 'no signature');
is_refused_webhook($body, '', 'SL023', 'empty header');
is_refused_webhook($body, undef, 'SL023', 'no header');
is_refused_webhook($body, sign($body) . ",x=$MARK" x 1000,
	'SL023', 'long header');
is_refused_webhook("{\"$MARK\": ", sign("{\"$MARK\": "), 'SL025', 'no JSON');
is_refused_webhook("[\"$MARK\"]", sign("[\"$MARK\"]"),
	'SL025', 'no JSON object');
is_refused_webhook("{\"object\": \"$MARK\"}",
	sign("{\"object\": \"$MARK\"}"),
	'SL026', 'no event');
(my $odd = $body) =~ s/"created":\d+/"created":"$MARK"/;
is_refused_webhook($odd, sign($odd), 'SL026', 'an odd event');
my $large = $body . $MARK x (1024 * 1024 / length $MARK);
is_refused($server->ingest_sql($large, sign($large)), 'SL024', 'too large');
is_refused(
	"SELECT stripe_lifecycle.verify_webhook_signature('$MARK'::text, 't=1', ' ')",
	'SL020', 'verify with a blank secret');

# Errors that others raise in the middle of it.
is_refused(
	'BEGIN READ ONLY; ' . $server->ingest_sql($body, sign($body)),
	'25006', 'read-only transaction');
is_refused(
	'BEGIN ISOLATION LEVEL SERIALIZABLE; '
	  . $server->ingest_sql($body, sign($body)),
	'SL027',
	'serializable transaction');

$server->sql('BEGIN');
$server->sql(
	"SELECT 1 FROM stripe_lifecycle.payments WHERE id = '$id' FOR UPDATE");
{
	my $other = StripeLifecycle::Session->new($server->node, 'postgres');
	my $length = $server->log_length;
	my (undef, $complaint) = $other->run(
		'SET statement_timeout = 300; ' . $server->ingest_sql($body, sign($body)));
	my $log = $server->log_text($length);

	like($complaint, qr/57014/, 'statement_timeout');
	like($log, qr/canceling statement/, 'statement_timeout: is in the log');
	unlike($log, qr/STATEMENT|CONTEXT|\Q$MARK\E/,
		'statement_timeout: without the statement');
	$other->close;
}
$server->sql('ROLLBACK');

# No secrets to check with.
rename $server->{webhook_secret_file}, "$server->{webhook_secret_file}.away";
$server->reload;
is_refused_webhook($body, sign($body), 'SL020', 'no secret');
rename "$server->{webhook_secret_file}.away", $server->{webhook_secret_file};
$server->reload;

#
# Payments that are refused
#

my %wrong = (
	amount => [ -1, 'SL010' ],
	currency => [ $MARK, 'SL011' ],
	idempotency_key => [ $MARK x 30, 'SL012' ],
	metadata => [ { a => { $MARK => 1 } }, 'SL013' ],
	params => [ { amount => $MARK }, 'SL014' ],
	customer => [ $MARK, 'SL015' ],
	receipt_email => [ $MARK, 'SL015' ],
	stripe_account => [ $MARK, 'SL015' ],
	capture_method => [ $MARK, 'SL015' ],
	decline_policy => [ $MARK, 'SL015' ]);
foreach my $argument (sort keys %wrong)
{
	my ($value, $sqlstate) = @{ $wrong{$argument} };

	is_refused(
		$server->create_payment_sql(
			description => $MARK,
			receipt_email => "$MARK\@example.com",
			$argument => $value),
		$sqlstate,
		"create_payment with a wrong $argument");
}
$server->intent_known(
	$server->create_payment(idempotency_key => "order-1-$MARK"));
is_refused(
	$server->create_payment_sql(
		idempotency_key => "order-1-$MARK",
		description => $MARK),
	'SL016',
	'an idempotency key of another payment');
is_refused(
	"SELECT stripe_lifecycle.confirm_payment('$id', '\"$MARK\"')",
	'SL014', 'confirm_payment with wrong params');

#
# And what goes well, or goes wrong at Stripe
#

my $length = $server->log_length;
is($server->ingest($body, sign($body)), 'applied', 'a good webhook');
is($server->ingest($body, sign($body)), 'duplicate', 'a second time');
$stripe->fault(kind => '402');
$id = $server->create_payment(description => "$MARK, too");
eventually(sub { $server->request($id)->{status} }, 'rejected', 'a refusal');
$stripe->fault(map { { kind => $_ } } qw(truncate 503 drop_after));
$id = $server->create_payment(
	description => "$MARK, again",
	receipt_email => "$MARK\@example.com");
$server->intent_known($id, 'a payment in spite of failures');
$secret = $server->payment($id, 'client_secret');
push @private, $secret =~ /_secret_(.*)/;
$stripe->pay($secret, 'pm_card_chargeDeclined');
$server->deliver_webhooks($stripe);
is($server->state($id), 'failed', 'a decline');
(my $other_amount = $body) =~ s/"amount":\d+/"amount":17/;
$other_amount =~ s/"id":"evt_/"id":"evt_other/;
is($server->ingest($other_amount, sign($other_amount)),
	'conflict', 'an event that contradicts');
like($server->log_text($length), qr/WARNING:.*contradicts/,
	'which is announced');
unlike($server->log_text($length), qr/STATEMENT|\Q$MARK\E/,
	'none of this shows what is private');

# Stored payloads are reduced.
is( $server->value(
		"SELECT count(*) FROM stripe_lifecycle.webhook_events
		  WHERE payload::text ~ '$MARK|_secret_|client_secret|receipt_email'"),
	0,
	'stored events hold nothing private');

$server->stop;
my $log = $server->log_text;
foreach my $private (@private)
{
	ok(index($log, $private) < 0, 'not in the whole log')
	  or diag("found: $private");
}
unlike($log, qr/pi_\w+_secret_/, 'nor anything like a client_secret');

done_testing();
