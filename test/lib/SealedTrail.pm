
=pod

=head1 NAME

SealedTrail - checkpoints of the audit trail, made and checked without the extension

=head1 DESCRIPTION

What docs/checkpoints.md says, written a second time: Merkle roots by their
definition, keys and signatures by the program openssl. So the extension's
checkpoints can be checked by something that is not the extension, and forged
as somebody would who has read the documentation.

=cut

package SealedTrail;

use strict;
use warnings;

use Digest::SHA qw(sha256 sha256_hex);
use Exporter 'import';
use IPC::Run;

our @EXPORT = qw(merkle_root make_key public_key fingerprint sign_text
  signature_is_good checkpoint_text);

# RFC 6962, 2.1, over leaves that are bytes; in hex.
sub merkle_root { return unpack 'H*', tree(@_); }

sub tree
{
	my @leaves = @_;
	my $k = 1;

	return sha256('') if @leaves == 0;
	return sha256("\x00$leaves[0]") if @leaves == 1;
	$k *= 2 while 2 * $k < @leaves;
	return sha256(
		"\x01" . tree(@leaves[ 0 .. $k - 1 ]) . tree(@leaves[ $k .. $#leaves ]));
}

# Runs openssl with the input and returns what it puts out; dies if it fails.
sub openssl
{
	my ($input, @arguments) = @_;
	my ($output, $complaints);

	IPC::Run::run([ 'openssl', @arguments ], \$input, \$output, \$complaints)
	  or die "openssl @arguments: $complaints";
	return $output;
}

# A new private key as text.
sub make_key { return openssl('', 'genpkey', '-algorithm', 'ed25519'); }

# The public half of a private key.
sub public_key { return openssl($_[0], 'pkey', '-pubout'); }

sub fingerprint
{
	return sha256_hex(openssl($_[0], 'pkey', '-pubout', '-outform', 'DER'));
}

# openssl reads what it signs from a file only.
sub in_file
{
	my ($dir, $name, $content) = @_;

	open my $file, '>:raw', "$dir/$name" or die "could not write $dir/$name: $!";
	print $file $content;
	close $file or die "could not write $dir/$name: $!";
	return "$dir/$name";
}

# The signature of a text, in hex; needs a folder to work in.
sub sign_text
{
	my ($dir, $private_key, $text) = @_;

	return unpack 'H*',
	  openssl('', 'pkeyutl', '-sign', '-rawin', '-inkey',
		in_file($dir, 'key', $private_key),
		'-in', in_file($dir, 'text', $text));
}

sub signature_is_good
{
	my ($dir, $public_key, $text, $signature) = @_;

	return eval {
		openssl('', 'pkeyutl', '-verify', '-rawin', '-pubin', '-inkey',
			in_file($dir, 'key', $public_key),
			'-in', in_file($dir, 'text', $text),
			'-sigfile', in_file($dir, 'signature', pack('H*', $signature)));
		1;
	} || 0;
}

# The text that is signed, of a checkpoint's values.
sub checkpoint_text
{
	my (%c) = @_;

	return join ' ', 'stripe_lifecycle checkpoint 1',
	  map { "$_=$c{$_}" }
	  qw(trail number from to leaves first_at last_at sealed_at root previous key);
}

1;
