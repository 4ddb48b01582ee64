# stripe_lifecycle: payments that PostgreSQL itself keeps right
#
#   make                    build the library (with_llvm=yes adds JIT bitcode) and
#                           stripe_lifecycle_verify, the program that checks exported audit trails
#   make install            install them, and the extension's script and control file
#   make installcheck       SQL, isolation and TAP tests against an installed, running server
#                           that preloads the library; all the set-up by itself: script/test
#   make unit               the rooms that hold no PostgreSQL code, under ASan and UBSan
#   make fuzz               the parsers of foreign bytes, under libFuzzer, for 20 seconds each (not as root)
#   make model              the protocol, by trying every order of its steps (needs spin)
#   make bench              says how to measure (bench/run)
#   make dist               the source archive, as PGXN takes it
#
#   make WERROR=1           any compiler warning is an error; script/test builds this way with
#                           gcc and with clang. Off by default: a newer compiler's new warning
#                           is ours to mend, not a reason why somebody cannot install.
#   make PG_CONFIG=PATH     build for another installation of PostgreSQL (15 to 19)

EXTENSION = stripe_lifecycle
MODULE_big = stripe_lifecycle
PGFILEDESC = "stripe_lifecycle - Stripe payments as a guarded state machine"

# The control file is the one place that says which version this is.
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" $(EXTENSION).control)

# The versions of the extension's objects that this library works with, separated by blanks: its own,
# and earlier ones whose objects have all that it relies on. With others it refuses to do anything.
ACCEPTS = $(EXTVERSION)

SOURCES := $(sort $(wildcard src/*.c))
PROJECT_HEADERS := $(sort $(wildcard src/*.h))
OBJS = $(SOURCES:.c=.o)
DATA := $(wildcard sql/*--*.sql)

# Only what PostgreSQL looks up by name leaves the library; every other symbol of ours stays local,
# so that no other preloaded library can take its place. The list is read from the sources.
SHLIB_EXPORTS = src/exports.txt
SHLIB_LINK = -lcurl -lcrypto

# PostgreSQL's own headers leave parameters unused, and so does every function with PG_FUNCTION_ARGS.
PG_CPPFLAGS = -DSL_VERSION='"$(EXTVERSION)"' -DSL_ACCEPTS='"$(ACCEPTS)"'
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter $(if $(filter-out 0,$(WERROR)),-Werror)

# pg_regress looks for NAME.sql in ./sql before it looks in test/sql, so nothing but the
# extension's own name--version.sql scripts may lie in ./sql. Expected output is in ./expected.
REGRESS := $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --encoding=UTF8
ISOLATION := $(sort $(patsubst test/isolation/specs/%.spec,%,$(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --encoding=UTF8
ifneq ($(wildcard test/t/*.pl),)
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl
endif

# The stand-alone verifier of audit trails. PGXS knows either a library or a program, so its rules are
# here. It shares the library's pure rooms, whose objects are position-independent and not for it.
VERIFIER = stripe_lifecycle_verify
VERIFIER_SOURCES := $(sort $(wildcard src/verifier/*.c)) \
	$(addprefix src/,audit_hash.c checkpoint.c checkpoint_key.c merkle.c sealed_trail.c)
VERIFIER_HEADERS := $(sort $(wildcard src/verifier/*.h))

EXTRA_CLEAN = $(VERIFIER) src/exports.txt src/exports.list results regression.diffs regression.out

# Bitcode helps nothing here and needs clang and LLVM of the server's version. It has to be
# overridden before PGXS is read, whose Makefile.global sets it for all extensions.
ifneq ($(origin with_llvm),command line)
override with_llvm := no
endif

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# Headers are few and objects are quick: any header's change rebuilds them all.
$(OBJS): $(PROJECT_HEADERS)

src/exports.txt: $(SOURCES) $(PROJECT_HEADERS)
	{ printf '%s\n' Pg_magic_func _PG_init; \
	  sed -n 's/^PG_FUNCTION_INFO_V1( *\([A-Za-z0-9_]*\) *).*/\1\npg_finfo_\1/p' $(SOURCES); \
	  sed -n 's/^\(extern *\)\{0,1\}PGDLLEXPORT .*[ *]\([A-Za-z0-9_]*\)(.*/\2/p' $(PROJECT_HEADERS) $(SOURCES); \
	} | LC_ALL=C sort -u | awk '{ print $$1, NR }' > $@

all: $(VERIFIER)

$(VERIFIER): $(VERIFIER_SOURCES) $(VERIFIER_HEADERS) $(PROJECT_HEADERS)
	$(CC) $(CFLAGS) -Isrc -Isrc/verifier -DSL_VERSION='"$(EXTVERSION)"' \
		$(LDFLAGS) $(LDFLAGS_EX) -o $@ $(VERIFIER_SOURCES) -lcrypto

install: install-verifier
uninstall: uninstall-verifier

.PHONY: install-verifier uninstall-verifier
install-verifier: $(VERIFIER)
	$(MKDIR_P) '$(DESTDIR)$(bindir)'
	$(INSTALL_PROGRAM) $(VERIFIER) '$(DESTDIR)$(bindir)/$(VERIFIER)'

uninstall-verifier:
	rm -f '$(DESTDIR)$(bindir)/$(VERIFIER)'

.PHONY: unit fuzz model bench dist

unit:
	$(MAKE) -C test/unit check

fuzz:
	$(MAKE) -C test/fuzz check

model:
	test/model/check

bench:
	@bench/run -h

dist:
	git archive --format=zip --prefix=$(EXTENSION)-$(EXTVERSION)/ \
		--output=$(EXTENSION)-$(EXTVERSION).zip HEAD

clean: clean-own-tests

.PHONY: clean-own-tests
clean-own-tests:
	$(if $(wildcard test/unit/Makefile),$(MAKE) -C test/unit clean)
	$(if $(wildcard test/fuzz/Makefile),$(MAKE) -C test/fuzz clean)
	rm -rf test/model/build
