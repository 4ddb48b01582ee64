
# Kills, under load: the worker, the launcher, clients and the whole server, at
# any moment, while the network misbehaves, too. Afterwards every payment that
# a client was told of is there, has exactly one PaymentIntent, and every event
# was applied once.
#
# SL_SEED chooses another order and other moments.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use StripeLifecycle;

my $seed = $ENV{SL_SEED} // 4;
my $CLIENTS = 4;
my %KILLS = (
	worker => 9,
	client => 6,
	launcher => 2,
	server => 5,
	immediate => 2);

srand($seed);
note("SL_SEED=$seed");

my $stripe = StripeLifecycle::StandIn->new(seed => $seed, latency_ms => 15);
my $server = StripeLifecycle->new(
	'main', $stripe,
	conf => q{
log_min_messages = error
stripe_lifecycle.max_in_flight = 16
stripe_lifecycle.retry_base_delay = 50
stripe_lifecycle.retry_max_delay = 500
});
my $node = $server->node;
my $dir = PostgreSQL::Test::Utils::tempdir;
my $started = time;

$server->disconnect;
$stripe->webhooks(
	duplicate => 1,
	shuffle => JSON::PP::true,
	types => ['payment_intent.*']);
$stripe->fault(
	map { { route => '*', kind => $_, count => -1, probability => 0.02 } }
	  qw(drop_before drop_after rst_after truncate 409 429 503));

#
# Load. What a client did not hear the end of it does again, with the same key.
#

# Runs statements in a psql of their own. The lines that it put out, whatever
# became of it.
sub psql_lines
{
	my ($name, @statements) = @_;
	my ($input, $output) = ("$dir/$name.sql", "$dir/$name.out");

	open my $file, '>', $input or die "$input: $!";
	print $file map { /\n\z/ ? $_ : "$_;\n" } @statements;
	close $file;
	system(join ' ', $node->installed_command('psql'), '-XAtq',
		'-d', "'" . $node->connstr('postgres') . "'",
		"-f $input >$output 2>/dev/null");
	return split /\n/, slurp_file($output);
}

sub client
{
	my ($n) = @_;
	my ($made, @todo) = (0);

	open my $known, '>', "$dir/known.$n" or die $!;
	until (-e "$dir/stop" && !@todo)
	{
		push @todo, "client-$n-" . ++$made while @todo < 3 && !-e "$dir/stop";
		my @statements = map {
			my ($kind) = /(\d)$/;
			my $method =
				$kind % 3 == 1 ? 'pm_card_visa'
			  : $kind % 3 == 2 ? 'pm_card_chargeDeclined'
			  : undef;

			"SELECT '$_', (" . $server->create_payment_sql(
				idempotency_key => $_,
				defined $method
				? (params => {
						confirm => JSON::PP::true,
						payment_method => $method,
						return_url => 'https://example.com/'
					})
				: ())
			  . ')';
		} @todo;
		my %done = map { split /\|/ } psql_lines("client-$n", @statements);

		print $known "$_ $done{$_}\n" foreach sort keys %done;
		@todo = grep { !$done{$_} } @todo;
		sleep 0.08;
	}
	close $known;
	return;
}

# Hands webhooks in, and again those that may have been lost on the way.
sub forward
{
	until (-e "$dir/stop forwarding")
	{
		my $batch = $stripe->pull_text(50, 100);
		my %todo = map { $_ => 1 } $batch =~ /\{"delivery":(\d+)/g;

		while (%todo)
		{
			foreach (psql_lines('forward',
					StripeLifecycle::deliveries_sql($batch)))
			{
				delete $todo{$1} if /^(\d+)\|[^|]+\|\w+$/;
			}
		}
	}
	return;
}

my @load = map {
	my $n = $_;
	spawn(sub { client($n) })
} 1 .. $CLIENTS;
my $forwarder = spawn(\&forward);

#
# Kills
#

sub pids
{
	my ($where) = @_;
	my ($ret, $output) = $node->psql('postgres',
		"SELECT pid FROM pg_stat_activity
		  WHERE pid <> pg_backend_pid() AND $where");

	return split /\n/, $output // '';
}

# Every process of the server: they work in its data directory.
sub server_processes
{
	my $where = $node->data_dir;

	return grep { (readlink "/proc/$_/cwd" // '') eq $where }
	  map { m{(\d+)} } glob '/proc/[0-9]*';
}

# kill -9 of the postmaster and of all that it started. One child left alive
# would be enough to keep the next server from starting, and it may well wait
# for a lock of a dead one for ever.
sub kill_server
{
	$node->kill9;
	while (my @left = server_processes())
	{
		kill 'KILL', @left;
		sleep 0.01;
	}

	# The postmaster may be a zombie for a while, depending on who adopted it;
	# to the next one it would look alive.
	unlink $node->data_dir . '/postmaster.pid',
	  $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	return;
}

# True if there was something to kill.
sub strike
{
	my ($whom) = @_;

	if ($whom eq 'immediate')
	{
		$node->stop('immediate');
		$node->start;
		return 1;
	}
	if ($whom eq 'server')
	{
		kill_server();
		$node->start;
		return 1;
	}
	my @pids = pids(
		$whom eq 'client'
		? q{backend_type = 'client backend'}
		: qq{backend_type = 'stripe_lifecycle $whom'});

	return @pids && kill 'KILL', $pids[ rand @pids ];
}

# Each time the worker gets so far that it is under load again.
sub wait_for_load
{
	my $give_up = time + $DEADLINE;
	my $before = $stripe->count('requests');

	while ($stripe->count('requests') < $before + 12)
	{
		return 0 if time > $give_up;
		sleep 0.01;
	}
	return 1;
}

my @plan = shuffle(map { ($_) x $KILLS{$_} } sort keys %KILLS);
my %struck;
my $stuck = '';
foreach my $whom (@plan)
{
	if (!wait_for_load())
	{
		$stuck = "before kill of $whom";
		last;
	}
	sleep rand 0.05;
	my $tries = 0;
	sleep 0.02 until strike($whom) || ++$tries > 100;
	$struck{$whom}++ if $tries <= 100;
}
is($stuck, '', 'the worker came back after every kill');
ok(wait_for_load(), 'and after the last one');
is_deeply(\%struck, \%KILLS, 'everybody was killed as often as planned');
note(sprintf '%d kills in %.1f s', scalar @plan, time - $started);

#
# Let it come to rest
#

append_to_file("$dir/stop", '');
is(StripeLifecycle::finish($_), 0, 'a client ends') foreach @load;
$stripe->no_faults;
sub is_drained
{
	return $server->value(
		q{SELECT count(*) FROM stripe_lifecycle.api_requests
		   WHERE status IN ('queued', 'in_flight')})
	  + $stripe->count('pending_deliveries');
}
eventually(\&is_drained, 0, 'all requests are settled, all webhooks taken');
append_to_file("$dir/stop forwarding", '');
is(StripeLifecycle::finish($forwarder), 0, 'the forwarder ends');

# The last webhooks may have queued cancellations, and those cause webhooks.
eventually(
	sub { $server->deliver_webhooks($stripe); is_drained() },
	0, 'all that followed is settled');

#
# The books
#

my $ledger = $stripe->ledger;
my %known;
foreach my $n (1 .. $CLIENTS)
{
	my $text = slurp_file("$dir/known.$n");

	$known{$1} = $2 while $text =~ /^(\S+) (\S+)$/mg;
}
my %payments = map { $_->{idempotency_key} => $_ }
  @{ $server->rows('SELECT * FROM stripe_lifecycle.payments') };
is_deeply(
	{ map { $_ => $payments{$_}{id} } keys %payments },
	\%known, 'the payments are those that clients were told of');
cmp_ok(scalar keys %payments, '>', 100, 'and not few')
  or diag(scalar keys %payments);

my %expected =
  map { $_->{id} => [ $_->{payment_intent_id} ] } values %payments;
is_deeply($ledger->{payment_intents_by_payment},
	\%expected, 'every payment has exactly one PaymentIntent, and its id');
is(scalar @{ $ledger->{payment_intents} },
	scalar keys %payments, 'no PaymentIntent belongs to no payment');

my %bodies;
$bodies{ $_->{idempotency_key} // 'none' }{ $_->{body} } = 1
  foreach @{ $ledger->{requests} };
my %frozen =
  map { $_->{idempotency_key} => { $_->{body} => 1 } }
  @{ $server->rows('SELECT * FROM stripe_lifecycle.api_requests') };
is_deeply(\%bodies, \%frozen,
	'every request arrived, with the bytes and the key of the outbox');
is( $server->value(
		q{SELECT count(*) FROM stripe_lifecycle.api_requests r
		   WHERE attempts <> (SELECT count(*) FROM stripe_lifecycle.api_attempts a
			WHERE a.request_id = r.id AND finished_at IS NOT NULL)}),
	0,
	'every attempt is recorded with its end');

# Events
my %status = (
	requires_payment_method => 'created',
	succeeded => 'succeeded',
	canceled => 'failed');
my %mirror = map {
	$_->{metadata}{stripe_lifecycle_payment_id} => $status{ $_->{status} }
} @{ $ledger->{payment_intents} };
is_deeply({ map { $_->{id} => $_->{state} } values %payments },
	\%mirror, 'every payment is in the state that Stripe has it in');
my %count;
$count{$_}++ foreach values %mirror;
is(join(' ', sort keys %count), 'created failed succeeded',
	'and all kinds of them took part');

is_deeply(
	[ map { $_->{event_id} } @{ $server->rows(
				'SELECT event_id FROM stripe_lifecycle.webhook_events
				  ORDER BY event_id COLLATE "C"') } ],
	[
		sort map { $_->{id} }
		  grep { $_->{type} =~ /^payment_intent/ } @{ $ledger->{events} }
	],
	'every event is there, once');
is( $server->value(
		q{SELECT count(*) FROM stripe_lifecycle.webhook_events
		   WHERE outcome IN ('unmatched', 'conflict')}),
	0,
	'every event was matched to its payment');
$server->audit_is_sound('every move has its event, and replays to the state');

my $before = $server->rows('SELECT * FROM stripe_lifecycle.payments ORDER BY id');
$stripe->webhooks(duplicate => 0);
$stripe->control('POST', 'webhooks/resend', { all => JSON::PP::true });
my %outcomes =
  map { $_ => 1 } $server->deliver_webhooks($stripe, qr/^payment_intent/);
is_deeply(\%outcomes, { duplicate => 1 }, 'all of them again: duplicates');
is_deeply($server->rows('SELECT * FROM stripe_lifecycle.payments ORDER BY id'),
	$before, 'that change nothing');

my $summary = $server->row(
	q{SELECT count(*) AS attempts,
		count(*) FILTER (WHERE result = 'lost') AS lost,
		count(*) FILTER (WHERE result = 'retry') AS retried,
		count(*) FILTER (WHERE idempotent_replayed) AS replayed
	   FROM stripe_lifecycle.api_attempts});
note(sprintf '%d payments, %d events, %d requests arrived; '
	  . '%d attempts, of them %d lost in crashes, %d failed, %d replayed; %.1f s',
	scalar keys %payments,
	scalar @{ $ledger->{events} },
	scalar @{ $ledger->{requests} },
	@$summary{qw(attempts lost retried replayed)},
	time - $started);
cmp_ok($summary->{lost}, '>', 0, 'kills met requests under way');

$server->stop;
unlike($server->log_text, qr/PANIC|TRAP|segfault|signal (?:6|11)/,
	'no process crashed by itself');

done_testing();
