
=pod

=head1 NAME

StripeLifecycle - a server with the extension, and a stand-in for Stripe beside it

=head1 SYNOPSIS

  use FindBin;
  use lib "$FindBin::RealBin/../lib";
  use StripeLifecycle;

  my $stripe = StripeLifecycle::StandIn->new;
  my $server = StripeLifecycle->new('main', $stripe);
  my $id = $server->create_payment(amount => 2000, currency => 'eur');
  eventually(sub { $server->value("SELECT ...") }, 'succeeded', 'it is paid');
  $server->deliver_webhooks($stripe);

=head1 DESCRIPTION

Tests wait for conditions and never for a length of time: eventually() looks
again and again until a deadline, and shows the last value it saw if that is
not the one wanted.

Everything a test starts is ended with it, whether it passes, fails, dies or is
interrupted: servers by PostgreSQL::Test::Cluster, everything else by the END
block here.

=cut

package StripeLifecycle;

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex);
use Exporter 'import';
use IPC::Run;
use JSON::PP ();
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(eventually fails_with median quote sign spawn write_secret
  $DEADLINE $API_KEY $WEBHOOK_SECRET);

# Shapes that the rules for secrets accept, and nothing that a scanner for
# leaked keys would take for a real one.
our $API_KEY = 'sk_test_tap';
our $WEBHOOK_SECRET = 'whsec_tap_secret';

our $DEADLINE = $PostgreSQL::Test::Utils::timeout_default;

# Processes to end with the test, and the process that has to do it: forked
# children inherit this table.
my %started;
my $owner = $$;

# So that END blocks run, those of PostgreSQL::Test::Cluster too.
$SIG{$_} = sub { exit 1; }
  foreach qw(INT TERM HUP);

END
{
	if ($$ == $owner)
	{
		my $exit_code = $?;

		end_process($_) foreach keys %started;
		$? = $exit_code;
	}
}

# Ends a process that spawn() started, and what that started in turn; returns
# its wait status.
sub end_process
{
	my ($pid, $signal) = @_;
	my $give_up = time + 10;

	return unless delete $started{$pid};
	kill $signal // 'TERM', -$pid, $pid;
	while (time < $give_up)
	{
		return $? if waitpid($pid, POSIX::WNOHANG()) == $pid;
		sleep 0.01;
	}
	kill 'KILL', -$pid, $pid;
	waitpid($pid, 0);
	return $?;
}

=pod

=head1 FUNCTIONS

=over

=item spawn(program, argument...) or spawn(sub { ... })

Starts a process, or a function in a process of its own, whose output goes to
the test's log. Returns its id. finish(id) waits for it.

=cut

sub spawn
{
	my @command = @_;
	my $pid = fork // die "could not fork: $!";

	if ($pid == 0)
	{
		$SIG{$_} = 'DEFAULT' foreach qw(INT TERM HUP);
		setpgrp(0, 0);

		# _exit: the parent's END blocks would stop the parent's servers
		if (ref $command[0])
		{
			my $ok = eval { $command[0]->(); 1 };

			print STDERR $@ unless $ok;
			POSIX::_exit($ok ? 0 : 1);
		}
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	$started{$pid} = 1;
	return $pid;
}

sub finish
{
	my ($pid) = @_;
	my $give_up = time + $DEADLINE;

	while (time < $give_up)
	{
		if (waitpid($pid, POSIX::WNOHANG()) == $pid)
		{
			delete $started{$pid};
			return $?;
		}
		sleep 0.02;
	}
	diag("process $pid did not end by itself");
	return end_process($pid);
}

=item eventually(probe, wanted, name)

A test: calls the function probe until it returns what is wanted (a string, a
qr// or a function that is given the value) and returns that value.

=cut

sub eventually
{
	my ($probe, $wanted, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $give_up = time + $DEADLINE;
	my $value;

	while (1)
	{
		$value = $probe->();
		if (matches($value, $wanted))
		{
			ok(1, $name);
			return $value;
		}
		last if time > $give_up;
		sleep 0.02;
	}
	ok(0, $name);
	diag("gave up after $DEADLINE s; the last value was:\n" . show($value));
	diag('wanted: ' . show($wanted)) unless ref $wanted eq 'CODE';
	return $value;
}

sub matches
{
	my ($value, $wanted) = @_;

	return $wanted->($value) if ref $wanted eq 'CODE';
	return 0 unless defined $value;
	return $value =~ $wanted if ref $wanted eq 'Regexp';
	return $value eq $wanted;
}

sub show
{
	my ($value) = @_;

	return 'undef' unless defined $value;
	return ref $value && ref $value ne 'Regexp'
	  ? JSON::PP->new->canonical->pretty->allow_nonref->allow_blessed->encode(
		$value)
	  : "$value";
}

=item fails_with(error, sqlstate, pattern, name)

A test of what StripeLifecycle::error() returned.

=cut

sub fails_with
{
	my ($error, $sqlstate, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return ok(1, $name)
	  if $error->{sqlstate} eq $sqlstate && $error->{text} =~ $pattern;
	ok(0, $name);
	diag("wanted $sqlstate $pattern, got:\n$error->{text}");
	return 0;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;

	return $sorted[ $#sorted / 2 ];
}

# The header of a webhook, by default a good one of this moment.
sub sign
{
	my ($body, $secret, $time) = @_;

	$time = int($time // time);
	return "t=$time,v1="
	  . hmac_sha256_hex("$time.$body", $secret // $WEBHOOK_SECRET);
}

# An SQL literal.
sub quote
{
	my ($text) = @_;

	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	$text =~ s/\\/\\\\/g;
	return "E'$text'";
}

# Writes a file of secrets; by default as the server wants it.
sub write_secret
{
	my ($path, $content, $mode) = @_;

	unlink $path;
	open my $file, '>', $path or die "could not write $path: $!";
	print $file $content;
	close $file or die "could not write $path: $!";
	chmod $mode // 0600, $path or die "chmod $path: $!";
	return;
}

=back

=head1 SERVER

=over

=item StripeLifecycle->new(name, stand-in, conf => text, ...)

Makes and starts a cluster with the extension in database postgres. Options:
conf (lines for postgresql.conf), start (0: don't), install_path (of another
installation, see NextVersion.pm).

=cut

sub new
{
	my ($class, $name, $stripe, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name,
		$options{install_path} ? (install_path => $options{install_path}) : ());
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $self = bless {
		node => $node,
		dir => $dir,
		api_key_file => "$dir/api_key",
		webhook_secret_file => "$dir/webhook_secrets",
		sessions => {},
		keys => 0
	}, $class;

	write_secret($self->{api_key_file}, "$API_KEY\n");
	write_secret($self->{webhook_secret_file}, "$WEBHOOK_SECRET\n");
	$node->init(extra => [ '--encoding=UTF8', '--locale=C', '--no-sync' ]);

	# TAP's own settings: log_statement would put into the log what the
	# extension keeps out of it, and a crash is to be survived.
	$node->append_conf(
		'postgresql.conf', qq{
shared_preload_libraries = 'stripe_lifecycle'
log_statement = none
restart_after_crash = on
log_line_prefix = '%m [%p] %b '
stripe_lifecycle.max_requests_per_second = 0
stripe_lifecycle.api_base = '@{[$stripe->base]}'
stripe_lifecycle.api_key_file = '$self->{api_key_file}'
stripe_lifecycle.webhook_secret_file = '$self->{webhook_secret_file}'
@{[$options{conf} // '']}
});
	if ($options{start} // 1)
	{
		$node->start;
		$self->sql('CREATE EXTENSION stripe_lifecycle');
	}
	return $self;
}

sub node { return $_[0]->{node}; }

# The server's log, or what was added to it since it had this length.
sub log_text
{
	my ($self, $since) = @_;

	return slurp_file($self->node->logfile, $since // 0);
}

sub log_length { return -s $_[0]->node->logfile; }

# Changes settings and returns when the postmaster knows them. Other processes
# learn of it soon after, so tests wait for the effect.
sub configure
{
	my ($self, @lines) = @_;

	$self->node->append_conf('postgresql.conf', join("\n", @lines));
	$self->reload;
	return;
}

sub reload
{
	my ($self) = @_;
	my $before = $self->value('SELECT pg_conf_load_time()');

	$self->node->reload;
	while ($self->value('SELECT pg_conf_load_time()') eq $before)
	{
		sleep 0.01;
	}
	return;
}

sub stop { my $self = shift; $self->disconnect; return $self->node->stop(@_); }
sub start { my $self = shift; return $self->node->start(@_); }

sub restart
{
	my ($self) = @_;

	$self->stop;
	return $self->start;
}

=item $server->session(database)

A psql that stays connected, to spare starting one for each query.

=cut

sub session
{
	my ($self, $database) = @_;

	$database //= 'postgres';
	return $self->{sessions}{$database} //=
	  StripeLifecycle::Session->new($self->node, $database);
}

# Before the server stops or a database is dropped.
sub disconnect
{
	my ($self, @databases) = @_;

	@databases = keys %{ $self->{sessions} } unless @databases;
	foreach my $database (@databases)
	{
		my $session = delete $self->{sessions}{$database};

		$session->close if $session;
	}
	return;
}

# Runs a query that has to succeed; returns its output.
sub sql
{
	my ($self, $sql, $database) = @_;
	my ($output, $complaints) = $self->session($database)->run($sql);

	die "failed: $sql\n$complaints" if $complaints =~ /^(ERROR|FATAL):/m;
	return $output;
}

sub value { return sql(@_); }

# The rows of a query, each a hash.
sub rows
{
	my ($self, $sql, $database) = @_;

	return JSON::PP->new->utf8->decode(
		$self->sql(
			"SELECT coalesce(json_agg(r), '[]') FROM ($sql) r", $database));
}

sub row { return rows(@_)->[0]; }

# Runs a query that should fail: its sqlstate ('' if it succeeded), all that
# the client was told, and its output.
sub error
{
	my ($self, $sql, $database) = @_;
	my ($output, $complaints) = $self->session($database)->run($sql);
	my ($sqlstate) = $complaints =~ /^(?:ERROR|FATAL):  (\w{5}): /m;

	return {
		sqlstate => $sqlstate // '',
		text => $complaints,
		output => $output
	};
}

=item $server->create_payment(amount => ..., database => ..., ...)

Calls create_payment() with named arguments; those that every payment needs
have defaults. Returns the payment's id.

=cut

sub create_payment_sql
{
	my ($self, %arguments) = @_;

	%arguments = (
		amount => 2000,
		currency => 'eur',
		idempotency_key => 'tap-' . ++$self->{keys},
		%arguments);
	foreach my $name (qw(metadata params))
	{
		$arguments{$name} = JSON::PP->new->canonical->encode($arguments{$name})
		  if ref $arguments{$name};
	}
	return 'SELECT stripe_lifecycle.create_payment('
	  . join(', ',
		map { "$_ => " . quote($arguments{$_}) } sort keys %arguments)
	  . ')';
}

sub create_payment
{
	my ($self, %arguments) = @_;
	my $database = delete $arguments{database};

	return $self->value($self->create_payment_sql(%arguments), $database);
}

# A payment's row, or one column of it.
sub payment
{
	my ($self, $id, $column, $database) = @_;
	my $row = $self->row(
		"SELECT * FROM stripe_lifecycle.payments WHERE id = '$id'", $database);

	return defined $column ? $row->{$column} : $row;
}

sub state { return $_[0]->payment($_[1], 'state', $_[2]); }

# A payment's latest call to Stripe, or its latest of one operation.
sub request
{
	my ($self, $id, $operation, $database) = @_;
	my $which = defined $operation ? "AND operation = '$operation'" : '';

	return $self->row(
		"SELECT * FROM stripe_lifecycle.api_requests
		  WHERE payment_id = '$id' $which ORDER BY id DESC LIMIT 1", $database);
}

sub attempts
{
	my ($self, $id, $operation, $database) = @_;

	return $self->rows(
		"SELECT a.*,
			extract(epoch FROM a.started_at)::float8 AS started,
			extract(epoch FROM a.finished_at)::float8 AS finished
		   FROM stripe_lifecycle.api_attempts a
		   JOIN stripe_lifecycle.api_requests r ON r.id = a.request_id
		  WHERE r.payment_id = '$id' AND r.operation = '@{[$operation // 'create']}'
		  ORDER BY request_id, attempt", $database);
}

# A test: the payment's PaymentIntent becomes known; returns its id.
sub intent_known
{
	my ($self, $id, $name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return eventually(
		sub { $self->payment($id, 'payment_intent_id', $database) },
		qr/^pi_/, $name // 'the PaymentIntent is stored');
}

# How many workers there are, in one database or in all.
sub workers
{
	my ($self, $database) = @_;
	my $where = defined $database ? "AND datname = '$database'" : '';

	return $self->value("SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'stripe_lifecycle worker' $where");
}

# What health() says of one check: its status and its detail.
sub health
{
	my ($self, $check, $database) = @_;

	return $self->value(
		"SELECT status || ': ' || detail FROM stripe_lifecycle.health()
		  WHERE check_name = '$check'", $database);
}

# The statement that hands in one webhook, its bytes as they are.
sub ingest_sql
{
	my ($self, $body, $header) = @_;

	return sprintf "SELECT stripe_lifecycle.ingest_webhook('\\x%s'::bytea, %s)",
	  unpack('H*', $body), quote($header);
}

sub ingest
{
	my ($self, $body, $header, $database) = @_;

	return $self->value($self->ingest_sql($body, $header), $database);
}

=item $server->deliver_webhooks(stand-in, type pattern)

Takes what waits at the stand-in and hands it in, as a web server would.
Returns the outcomes, or, of one event type, the last outcome.

=cut

sub deliver_webhooks
{
	my ($self, $stripe, $type) = @_;
	my @outcomes;

	while ((my $batch = $stripe->pull_text) ne '[]')
	{
		foreach (split /\n/, $self->sql(deliveries_sql($batch)))
		{
			my (undef, $its_type, $outcome) = split /\|/;

			push @outcomes, $outcome
			  unless defined $type && $its_type !~ $type;
		}
	}
	return wantarray ? @outcomes : $outcomes[-1];
}

# For psql: hands in, each in a transaction of its own, what pull_text() gave,
# and shows number, type and outcome of each. That the server takes the JSON
# apart spares a test the slow JSON::PP.
sub deliveries_sql
{
	my ($batch) = @_;

	return
	  "SELECT format('SELECT %L, %L, stripe_lifecycle.ingest_webhook(%L::text, %L)',
			delivery, type, body, header)
		FROM json_to_recordset(\$batch\$$batch\$batch\$)
			AS d (delivery int, type text, body text, header text) \\gexec\n";
}

=pod

=item $server->audit_is_sound(name)

A test: every payment's trail has no gap, follows legal edges only, and ends
in the payment's state; and verify_audit() has nothing to add.

=cut

sub audit_is_sound
{
	my ($self, $name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $breaks = $self->rows(
		q{
		WITH replay AS (
			SELECT t.*,
				lag(to_state) OVER w AS before,
				row_number() OVER w AS n
			  FROM stripe_lifecycle.payment_transitions t
			WINDOW w AS (PARTITION BY payment_id ORDER BY seq))
		SELECT r.payment_id, r.seq, 'broken chain' AS what FROM replay r
		 WHERE r.seq <> r.n OR r.from_state IS DISTINCT FROM r.before
		UNION ALL
		SELECT r.payment_id, r.seq, 'illegal edge' FROM replay r
		 WHERE NOT EXISTS (SELECT FROM stripe_lifecycle.legal_transitions() l
			WHERE l.from_state IS NOT DISTINCT FROM r.from_state
			  AND l.to_state = r.to_state)
		UNION ALL
		SELECT p.id, p.transitions, 'replay differs from payment'
		  FROM stripe_lifecycle.payments p
		 WHERE (p.transitions, p.state) IS DISTINCT FROM
			(SELECT (r.seq, r.to_state) FROM replay r
			  WHERE r.payment_id = p.id ORDER BY r.seq DESC LIMIT 1)
		UNION ALL
		SELECT r.payment_id, r.seq, 'no event for it' FROM replay r
		 WHERE r.seq > 1 AND NOT EXISTS (
			SELECT FROM stripe_lifecycle.webhook_events e
			 WHERE e.event_id = r.event_id AND e.outcome = 'applied'
			   AND e.payment_id = r.payment_id)
		UNION ALL
		SELECT e.payment_id, 0, 'applied without a transition'
		  FROM stripe_lifecycle.webhook_events e
		 WHERE e.outcome = 'applied' AND 1 <> (SELECT count(*)
			 FROM replay r WHERE r.event_id = e.event_id)
		UNION ALL
		SELECT payment_id, seq, problem || ': ' || detail
		  FROM stripe_lifecycle.verify_audit()
		}, $database);

	return is_deeply($breaks, [], $name // 'the audit trail is sound');
}

=pod

=back

=cut

package StripeLifecycle::Session;

use strict;
use warnings;

use IPC::Run;

sub new
{
	my ($class, $node, $database) = @_;
	my $self = bless { in => '', out => '', err => '', n => 0 }, $class;

	$self->{timer} = IPC::Run::timeout($StripeLifecycle::DEADLINE);
	$self->{psql} = IPC::Run::start(
		[
			$node->installed_command('psql'), '-XAtq',
			'-d', $node->connstr($database),
			'-v', 'VERBOSITY=verbose'
		],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err},
		$self->{timer});
	return $self;
}

# Runs a statement and returns what it put out and what it complained about.
sub run
{
	my ($self, $sql) = @_;
	my $mark = 'end of statement ' . ++$self->{n};
	my ($output, $complaints);

	$self->{timer}->start($StripeLifecycle::DEADLINE);
	$self->{in} .= "$sql\n;\n\\echo\n\\echo '$mark'\n\\warn '$mark'\n";
	until ($self->{out} =~ /^\Q$mark\E\n/m && $self->{err} =~ /^\Q$mark\E\n/m)
	{
		last unless eval { $self->{psql}->pump; 1; };
	}
	($output, $complaints) = ($self->{out}, $self->{err});
	$output =~ s/\n?^\Q$mark\E\n//m;
	$complaints =~ s/^\Q$mark\E\n//m;
	$output =~ s/\n\z//;
	$self->{out} = $self->{err} = '';
	if (!$self->{psql}->pumpable)
	{
		$complaints .= "FATAL:  08006: the session is gone\n";
	}
	return ($output, $complaints);
}

sub close
{
	my ($self) = @_;

	$self->{in} .= "\\q\n";
	eval { $self->{psql}->finish; };
	return;
}

package StripeLifecycle::StandIn;

use strict;
use warnings;

use Encode ();
use File::Basename qw(dirname);
use HTTP::Tiny;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

=pod

=head1 STAND-IN FOR STRIPE

=over

=item StripeLifecycle::StandIn->new(option => value, ...)

Starts test/stripe_sim.py on a free port; options are those of its command
serve, such as seed or latency_ms.

=cut

my $program = dirname(__FILE__) . '/../stripe_sim.py';

sub new
{
	my ($class, %options) = @_;
	my $self = bless {
		dir => PostgreSQL::Test::Utils::tempdir,
		http => HTTP::Tiny->new(timeout => $StripeLifecycle::DEADLINE),
		options =>
		  { webhook_secret => $StripeLifecycle::WEBHOOK_SECRET, %options },
	}, $class;

	$self->start;
	return $self;
}

# Starts it, again on the port it had. It has forgotten everything; with another
# seed, lest it issue the same ids for other things.
sub start
{
	my ($self) = @_;
	my $file = "$self->{dir}/port";
	my $give_up = time + $StripeLifecycle::DEADLINE;
	my @options;

	unlink $file;
	$self->{options}{seed}++ if defined $self->{port};
	foreach my $name (sort keys %{ $self->{options} })
	{
		(my $option = "--$name") =~ s/_/-/g;
		push @options, $option, $self->{options}{$name};
	}
	$self->{pid} = StripeLifecycle::spawn('python3', $program, 'serve',
		'--port', $self->{port} // 0, '--port-file', $file, @options);
	until (-s $file)
	{
		die 'the stand-in for Stripe did not start'
		  if time > $give_up || waitpid($self->{pid}, POSIX::WNOHANG()) != 0;
		sleep 0.01;
	}
	($self->{port}) = slurp_file($file) =~ /(\d+)/;
	return;
}

sub stop
{
	my ($self) = @_;

	StripeLifecycle::end_process(delete $self->{pid});
	return;
}

sub base { return "http://127.0.0.1:$_[0]->{port}"; }

# A call to the control surface, or to the API with a key.
sub call
{
	my ($self, $method, $path, $content, %headers) = @_;
	my $response = $self->{http}->request($method, $self->base . $path,
		{ content => $content // '', headers => \%headers });
	my $answer = eval { JSON::PP->new->utf8->decode($response->{content}) };

	die "$method $path: $response->{status} $response->{content}"
	  unless defined $answer;
	return wantarray ? ($answer, $response->{status}) : $answer;
}

sub control
{
	my ($self, $method, $path, $argument) = @_;
	my ($answer, $status) = $self->call($method, "/_sim/$path",
		defined $argument ? JSON::PP->new->utf8->encode($argument) : '');

	die "$path: " . JSON::PP->new->encode($answer) unless $status == 200;
	return $answer;
}

# What the control surface shows, as it is.
sub text
{
	my ($self, $path) = @_;
	my $response = $self->{http}->get($self->base . "/_sim/$path");

	die "$path: $response->{status} $response->{content}"
	  unless $response->{success};
	return $response->{content};
}

# What the customer's browser does, with the publishable key.
sub pay
{
	my ($self, $client_secret, $payment_method) = @_;
	my ($intent) = $client_secret =~ /^(pi_.*)_secret_/;

	return scalar $self->call(
		'POST',
		"/v1/payment_intents/$intent/confirm",
		"client_secret=$client_secret&payment_method=$payment_method"
		  . '&return_url=https%3A%2F%2Fexample.com%2Fdone',
		Authorization => 'Bearer pk_test_tap',
		'Content-Type' => 'application/x-www-form-urlencoded');
}

# What the merchant does at Stripe, past the database.
sub api
{
	my ($self, $path, $body) = @_;

	return scalar $self->call(
		'POST', "/v1/$path", $body,
		Authorization => "Bearer $StripeLifecycle::API_KEY",
		'Content-Type' => 'application/x-www-form-urlencoded');
}

sub authenticate
{
	my ($self, $intent, $outcome) = @_;

	return $self->control('POST', "payment_intents/$intent/authenticate",
		{ outcome => $outcome });
}

=item $stripe->fault(kind => ..., ...)

Makes requests suffer; see `stripe_sim.py serve --help`. The route is that of
creating a PaymentIntent unless given.

=cut

sub fault
{
	my ($self, @faults) = @_;

	@faults = ({@faults}) unless ref $faults[0];
	return $self->control('POST', 'faults',
		[ map { { route => 'POST /v1/payment_intents', %$_ } } @faults ]);
}

sub no_faults { return $_[0]->control('DELETE', 'faults'); }
sub ledger { return $_[0]->control('GET', 'ledger'); }

# One of the ledger's totals, such as requests.
sub count
{
	my ($self, $what) = @_;
	my ($n) = $self->text('ledger?summary=1') =~ /"$what":(\d+)/;

	return $n;
}

sub webhooks
{
	my ($self, %config) = @_;

	return $self->control('POST', 'webhooks/config', \%config);
}

# Waiting webhooks, as the JSON text they come in; '[]' if there are none.
sub pull_text
{
	my ($self, $max, $wait_ms) = @_;

	return $self->text(sprintf 'webhooks?max=%d&wait_ms=%d',
		$max // 100, $wait_ms // 0);
}

# The same, each with its body as bytes.
sub pull
{
	my $deliveries = JSON::PP->new->utf8->decode(pull_text(@_));

	$_->{bytes} = Encode::encode('UTF-8', $_->{body}) foreach @$deliveries;
	return @$deliveries;
}

# Every request that came with this idempotency key, as it arrived.
sub arrivals
{
	my ($self, $key) = @_;

	return
	  grep { ($_->{idempotency_key} // '') eq $key }
	  @{ $self->ledger->{requests} };
}

# The PaymentIntents of one payment.
sub intents_of
{
	my ($self, $payment) = @_;

	return
	  grep { ($_->{metadata}{stripe_lifecycle_payment_id} // '') eq $payment }
	  @{ $self->ledger->{payment_intents} };
}

sub intent
{
	my ($self, $id) = @_;

	return (grep { $_->{id} eq $id }
		  @{ $self->ledger->{payment_intents} })[0];
}

=pod

=back

=cut

1;
