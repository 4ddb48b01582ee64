# A dump carries who served the database. Restored elsewhere it knows itself for a copy: it pauses, says
# so in the log, to whoever queues something and in health(), and sends nothing until resume_worker().

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Utils;
use StripeLifecycle;
use Test::More;

my $stripe = StripeLifecycle::StandIn->new;
my $server = StripeLifecycle->new('original', $stripe);
my $other = StripeLifecycle->new('elsewhere', $stripe);

$server->intent_known($server->create_payment, 'the original sends');
$server->disconnect;

# a copy in another server, as pg_dump | psql makes it
my $dump = "$server->{dir}/dump.sql";
$server->node->command_ok(
	[ 'pg_dump', '-f', $dump, $server->node->connstr('postgres') ], 'pg_dump');
$other->sql('CREATE DATABASE restored TEMPLATE template0');
$other->node->command_ok(
	[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump,
		$other->node->connstr('restored') ],
	'psql reads it back without an error');

is($other->value('SELECT count(*) FROM stripe_lifecycle.worker_state', 'restored'),
	1, 'one row of worker_state');
is( $other->value('SELECT system_identifier FROM stripe_lifecycle.worker_state', 'restored'),
	$server->value('SELECT system_identifier FROM pg_control_system()'),
	'it names the server that sent');

my $log = $other->log_length;
my $copy = $other->error($other->create_payment_sql(idempotency_key => 'in the copy'),
	'restored');
like($copy->{text}, qr/WARNING:.*is paused.*this is a copy/s, 'the copy says so on enqueue');
eventually(sub { $other->value('SELECT paused FROM stripe_lifecycle.worker_state', 'restored') },
	't', 'its worker pauses it');
like($other->log_text($log), qr/WARNING:  stripe_lifecycle has paused this database/,
	'and says so in the log');
isnt($other->value("SELECT status FROM stripe_lifecycle.health() WHERE check_name = 'paused'",
		'restored'),
	'ok', 'and in health()');
is(scalar $stripe->arrivals("stripe_lifecycle-$copy->{output}-create"), 0, 'nothing was sent');

$other->sql('SELECT stripe_lifecycle.resume_worker()', 'restored');
$other->intent_known($copy->{output}, 'after resume_worker() it is', 'restored');

$other->stop;
$server->stop;
done_testing();
