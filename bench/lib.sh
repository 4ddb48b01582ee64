# shellcheck shell=bash
#
# What bench/run and bench/compare share: a place to work in, servers built for measuring, and the
# Python that measures. Needs script/lib.sh.

begin_bench()
{
	make_workdir bench
	trap end_bench EXIT
	trap 'exit 130' INT TERM
	raise_file_limit
}

end_bench()
{
	local status=$?

	trap - EXIT
	cd /
	end_processes_below "$workdir"
	rm -rf "$workdir"
	exit "$status"
}

# build_server SOURCES DIR [NAME]: an installation with the extension of those sources, and a cluster with
# PostgreSQL's default durability, all below DIR; sets bindir. Nothing of it can reach Stripe.
build_server()
{
	say "building${3:+ $3}"
	as_user mkdir -p "$2"
	sl_repo=$1 copy_tree "$2/tree"
	private_postgres "$2/pg"
	{
		as_user make -s -C "$2/tree" PG_CONFIG="$PG_CONFIG" &&
			as_user make -s -C "$2/tree" PG_CONFIG="$bindir/pg_config" install
	} >"$2/build.log" 2>&1 || { cat "$2/build.log" >&2; die 'the build failed'; }
	new_cluster "$2/data" "$2/socket" >/dev/null
	printf 'whsec_bench_%s\n' "$RANDOM$RANDOM" | as_user tee "$2/webhook_secret" >/dev/null
	printf 'sk_test_bench_%s\n' "$RANDOM$RANDOM" | as_user tee "$2/api_key" >/dev/null
	as_user chmod 600 "$2/webhook_secret" "$2/api_key"
	as_user tee -a "$2/data/postgresql.conf" <<-END >/dev/null
		fsync = on
		max_wal_size = 4GB
		shared_buffers = 512MB
		stripe_lifecycle.webhook_secret_file = '$2/webhook_secret'
		stripe_lifecycle.webhook_tolerance = '1 d'
		stripe_lifecycle.api_base = 'http://127.0.0.1:9'
	END
}

# build_pg_net SOURCES DIR: puts pg_net into the installation below DIR. False if it can't be built.
build_pg_net()
{
	say "building pg_net"
	as_user mkdir "$2/pg_net"
	tar -C "$1" -cf - --exclude=./.git . | as_user tar -C "$2/pg_net" -xf - --no-same-owner
	{
		# its headers are for nobody here, and would go where only links are
		as_user make -s -C "$2/pg_net" with_llvm=no PG_CONFIG="$PG_CONFIG" &&
			as_user make -s -C "$2/pg_net" with_llvm=no PG_CONFIG="$bindir/pg_config" HEADERS= install
	} >"$2/pg_net.log" 2>&1 || { tail -n 5 "$2/pg_net.log" >&2; say 'pg_net cannot be built'; return 1; }
}

# measure MODULE ARGUMENT...: a program of bench/measure, as the user that runs PostgreSQL
measure()
{
	as_user env PYTHONPATH="$workdir/new/tree/bench" python3 -m "$@"
}
