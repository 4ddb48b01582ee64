# shellcheck shell=bash
#
# What script/bootstrap, script/test and script/demo share: which PostgreSQL, which user, and a
# private place to work in.
#
# The scripts change nothing outside a temporary folder but installed packages:
#
# * PostgreSQL finds its libraries and its extensions relative to its own executable. So a tree
#   with copies of the programs and links to everything else is a whole installation
#   (private_postgres), into which `make install` can go. It works for every major version and
#   needs no setting in any server, so tests see a server as they would see an ordinary one.
# * initdb and postgres refuse to run as root, and root's checkout may lie where nobody else can
#   look. So the tree is copied, and root runs everything but package installation as the user
#   postgres (as_user).
# * Whatever is still running below the folder is ended by its process id when a script ends, also
#   by Ctrl-C (end_processes_below): a process belongs to us if its working directory is there.

set -euo pipefail

sl_repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
sl_started=${EPOCHREALTIME/./}

# The major version that the packages are for. Another installation: PG_CONFIG=/path/pg_config.
PG_MAJOR=${PG_MAJOR:-15}
sl_packaged=
if [ -z "${PG_CONFIG:-}" ]; then
	PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
	sl_packaged=yes
fi

# The caller's settings for another server must not lead these scripts there.
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE \
	PGOPTIONS PGAPPNAME PGSSLMODE PGCLIENTENCODING PGDATESTYLE PGTZ PGDATA PGCTLTIMEOUT \
	MAKEFLAGS MAKELEVEL MFLAGS PG_REGRESS TEMP_CONFIG PG_TEST_EXTRA PROVE_FLAGS PERL5LIB

# A bare system has no other UTF-8 locale, and without one initdb would choose SQL_ASCII.
export LANG=C.UTF-8 LC_ALL=C.UTF-8
export PYTHONDONTWRITEBYTECODE=1

die()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# seconds: time since the script began, such as 12.3
seconds()
{
	local now=${EPOCHREALTIME/./}
	local tenths=$(((now - sl_started) / 100000))

	printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

say()
{
	printf '[%5s s] %s\n' "$(seconds)" "$*"
}

# As the user that runs PostgreSQL: root borrows the one that comes with the packages.
sl_user=()
[ "$(id -u)" != 0 ] || sl_user=(runuser -u postgres --)

as_user()
{
	"${sl_user[@]}" "$@"
}

# run_below DIR LOG COMMAND...: as that user in DIR, all output appended to LOG unless that is "-".
# In the background, because a shell looks at its signals only between commands; that would make
# the command deaf to Ctrl-C, were it not for env.
run_below()
{
	{
		[ "$2" = - ] || exec >>"$2" 2>&1
		cd "$1" && exec "${sl_user[@]}" env --default-signal=INT,QUIT "${@:3}"
	} &
	wait "$!"
}

# make_workdir NAME: sets workdir to a new folder that as_user's user owns. Sockets lie below it,
# and their paths have to be short, so TMPDIR counts only if it is.
make_workdir()
{
	local parent=${TMPDIR:-/tmp}

	if [ "${#parent}" -gt 40 ] || ! as_user test -w "$parent" -a -x "$parent"; then
		parent=/tmp
	fi
	workdir=$(cd "$(mktemp -d "$parent/stripe_lifecycle-$1.XXXXXX")" && pwd -P)
	if [ "$(id -u)" = 0 ]; then
		chown postgres: "$workdir"
	fi
	export HOME=$workdir TMPDIR=$workdir
	# programs complain when they are started where their user may not look
	cd /
}

# copy_tree DIR: the sources, as they are in the checkout, without what was built there.
copy_tree()
{
	as_user mkdir "$1"
	tar -C "$sl_repo" -cf - --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' \
		--exclude=./results --exclude=./output_iso --exclude='./tmp_check*' --exclude=./log \
		--exclude=build --exclude=__pycache__ --exclude='./regression.*' \
		--exclude=./src/exports.txt --exclude=./src/exports.list . |
		as_user tar -C "$1" -xf - --no-same-owner --no-same-permissions
}

# link_all FROM TO [EXCEPT...]: TO becomes a folder of links to what is in FROM.
link_all()
{
	local from=$1 to=$2 entry name

	shift 2
	as_user mkdir -p "$to"
	for entry in "$from"/*; do
		name=${entry##*/}
		case " $* " in
			*" $name "*) ;;
			*) printf '%s\0' "$entry" ;;
		esac
	done | as_user xargs -0 -r ln -s -t "$to"
}

# private_postgres DIR: an installation of our own below DIR; sets bindir to its programs.
private_postgres()
{
	local system_bin system_share system_lib system_include

	system_bin=$("$PG_CONFIG" --bindir)
	system_share=$("$PG_CONFIG" --sharedir)
	system_lib=$("$PG_CONFIG" --pkglibdir)
	system_include=$("$PG_CONFIG" --includedir-server)
	bindir=$1$system_bin

	as_user mkdir -p "$bindir"
	as_user cp -L "$system_bin"/* "$bindir/"
	link_all "$system_lib" "$1$system_lib" stripe_lifecycle.so
	link_all "$system_share" "$1$system_share" extension
	link_all "$system_share/extension" "$1$system_share/extension" stripe_lifecycle.control
	# a test builds libraries against it
	link_all "$system_include" "$1$system_include"
	as_user find "$1$system_share/extension" -name 'stripe_lifecycle--*.sql' -delete

	[ "$(as_user "$bindir/pg_config" --sharedir)" = "$1$system_share" ] ||
		die "this PostgreSQL cannot be moved: $bindir/pg_config does not report paths below $1"
}

# new_cluster DATADIR SOCKETDIR: no TCP, and nobody but the owner of the folder reaches the socket.
new_cluster()
{
	as_user mkdir -p "$2"
	as_user chmod 700 "$2"
	as_user "$bindir/initdb" -D "$1" -U postgres -A trust -N -E UTF8 --locale=C.UTF-8
	as_user tee -a "$1/postgresql.conf" <<-END >/dev/null
		listen_addresses = ''
		unix_socket_directories = '$2'
		shared_preload_libraries = 'stripe_lifecycle'
		fsync = off
		log_line_prefix = '%m [%p] %b '
	END
}

# signal_processes SIGNAL DIR [others]: the shell's own kill, since a bare system has no other.
signal_processes()
{
	local pid

	for pid in $(processes_below "${@:2}"); do
		kill "-$1" "$pid" 2>/dev/null || true
	done
}

# end_processes_below DIR: PostgreSQL servers by a fast shutdown, the others at once; whatever is
# still there after three seconds is told again, after five killed.
end_processes_below()
{
	local dir=$1 file pid round

	while IFS= read -r file; do
		pid=$(head -n 1 "$file")
		if [ "$(readlink "/proc/$pid/cwd")" = "${file%/*}" ]; then
			kill -INT "$pid" || true
		fi
	done 2>/dev/null < <(find "$dir" -name postmaster.pid -type f 2>/dev/null)
	signal_processes TERM "$dir" others

	for round in $(seq 1 60); do
		[ -n "$(processes_below "$dir")" ] || return 0
		case $round in
			30) signal_processes TERM "$dir" ;;
			5?) signal_processes KILL "$dir" ;;
		esac
		sleep 0.1
	done
	echo "still running: $(processes_below "$dir" | tr '\n' ' ')" >&2
}

# processes_below DIR [others]: ids of processes that work in DIR; with others not PostgreSQL's.
processes_below()
{
	local entry cwd

	for entry in /proc/[0-9]*; do
		cwd=$(readlink "$entry/cwd" 2>/dev/null) || continue
		case $cwd/ in
			"$1"/*) ;;
			*) continue ;;
		esac
		if [ "${2:-}" = others ] && [ -e "$cwd/PG_VERSION" ]; then
			continue
		fi
		[ "${entry#/proc/}" = $$ ] || echo "${entry#/proc/}"
	done
}

# Tests and the worker open many sockets; the usual soft limit is 1024.
raise_file_limit()
{
	local hard

	hard=$(ulimit -Hn)
	if [ "$hard" = unlimited ] || [ "$hard" -gt 65536 ]; then
		hard=65536
	fi
	[ "$(ulimit -Sn)" = unlimited ] || [ "$(ulimit -Sn)" -ge "$hard" ] || ulimit -Sn "$hard"
}
