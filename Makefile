# sshmux - `make help` lists the targets, README.md tells the rest.
#
# Every variant has its own object directory below build/, so switching back
# and forth never mixes objects; ./sshmux (./sshmux-static) is always the
# binary of the variant asked for last.

DROPBEAR_VERSION ?= 2026.94
PROFILE ?= default
PREFIX ?= /usr/local
AR ?= ar
empty :=
comma := ,
space := $(empty) $(empty)

ifneq ($(STATIC),)
ifeq ($(origin CC),default)
CC = musl-gcc
endif
PROGRAM = sshmux-static
# At a random address (static PIE) and with guarded stacks, where the profile has room for
# that and this musl has what it takes; SECURITY.md says what each costs.  The rest: the
# small "common" page, so that no padding is in the file before the data.
MUSL_LIB := $(if $(TARGET)$(filter router,$(PROFILE)),,$(shell $(CC) -v 2>&1 | \
	sed -n 's,^Reading specs from \(.*\)/musl-gcc.specs,\1,p'))
STATIC_PIE := $(if $(MUSL_LIB),$(wildcard $(MUSL_LIB)/rcrt1.o))
VARIANT_FLAGS = -fno-asynchronous-unwind-tables -fno-unwind-tables \
	$(if $(STATIC_PIE),-fPIE -fstack-protector-strong,-fno-stack-protector -fno-pie)
LINK_STRIP = -s
LINK_FLAGS = -static $(LINK_STRIP) -Wl,--build-id=none $(if $(STATIC_PIE),-nostartfiles -Wl$(comma)-pie$(comma)--no-dynamic-linker$(comma)-z$(comma)text \
	-Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now $(STATIC_PIE) $(MUSL_LIB)/crti.o $(MUSL_LIB)/crtn.o,-no-pie \
	-Wl$(comma)-z$(comma)noseparate-code$(comma)-z$(comma)norelro$(comma)-z$(comma)common-page-size=64)
# The smallest one is optimized as a whole when it is linked: a fiftieth less.  Its objects
# have ordinary code too, for a plain ar and for the programs of the tests.  (Not with the
# compilers of `make cross`: MIPS16 would be lost.)
ifeq ($(PROFILE) $(CC),router musl-gcc)
LTO = -flto -ffat-lto-objects
WHOLE = -flto -flto-partition=none
endif
else
ifeq ($(origin CC),default)
CC = gcc
endif
PROGRAM = sshmux
# Bound at the start: the dynamic linker, called in the midst of a signature, would
# leave registers on the stack; and what it has written is read-only from then on.
LINK_FLAGS = -Wl,-z,relro,-z,now
VARIANT_FLAGS = $(if $(filter router,$(PROFILE)),,-fPIE -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif
ifeq ($(filter default router,$(PROFILE)),)
$(error PROFILE is default or router, not "$(PROFILE)")
endif
PROFILE_CPPFLAGS = $(if $(filter router,$(PROFILE)),-DPROFILE_ROUTER)
ifneq ($(SANITIZE),)
override SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
OPT ?= -O1 -g -fno-omit-frame-pointer
endif
OPT ?= $(if $(filter router,$(PROFILE)),-Oz,-Os) -ffunction-sections -fdata-sections $(VARIANT_FLAGS)

# build/2026.94-gcc[-static][-router][-sanitize][-checks], build/2026.94-musl-static-router-TARGET
O := build/$(DROPBEAR_VERSION)-$(if $(TARGET),musl,$(subst $(space),_,$(subst /,_,$(strip $(CC)))))$(if \
	$(STATIC),-static)$(patsubst %,-%,$(filter-out default,$(PROFILE)))$(if \
	$(SANITIZE),-sanitize)$(if $(CHECKS),-checks)$(patsubst %,-%,$(TARGET))

OWN = $(CC) -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE $(OPT) $(LTO) $(SANITIZE) \
	$(if $(STATIC),-fno-inline-functions-called-once) $(OWN_FLAGS) \
	$(PROFILE_CPPFLAGS) $(if $(CHECKS),-DCHECKS) $(CPPFLAGS) $(CFLAGS) $(COVERED) -MMD -MP
LINK = $(CC) $(OPT) $(SANITIZE) $(CFLAGS) -Wl,--gc-sections $(LINK_FLAGS) $(LDFLAGS)

# The binary under test: ours, unless another one is named.
UNDER_TEST = $(if $(SSHMUX),$(SSHMUX),./$(PROGRAM))
RUN = SSHMUX="$(UNDER_TEST)" UNIT="$(O)/unit" MUXC="$(O)/muxc"
TOOLS = $(O)/muxc $(O)/net $(O)/pty $(O)/link $(O)/pxfuzz
HOMELIB = $(O)/home.so
TESTS ?=
AGAIN = $(MAKE) --no-print-directory INNER=1
SETUP = @tests/setup
# Plain builds install nothing: they print the line that would.
NEEDS = @tests/setup -n

# Goals of one call come one after the other, each with all CPUs: two that build the
# same objects at once would spoil them.
ifeq ($(INNER),)
.NOTPARALLEL:
endif
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 1)
endif

all:
	$(NEEDS) build
	@+$(AGAIN) $(PROGRAM)

static:
	$(NEEDS) build static
	@+$(AGAIN) STATIC=1 sshmux-static

help:
	@echo 'make              ./sshmux'
	@echo 'make static       ./sshmux-static, one stripped binary (musl)'
	@echo 'make demo         the main job on a private server, with its costs'
	@echo 'make check        the tests; make check TESTS="20-sessions" for some'
	@echo 'make check-more   sanitizers, static, router profile, ordinary user, ...'
	@echo 'make check-vm     on emulated routers: MIPS with 29 MB, ARM; cron jobs, outages'
	@echo 'make check-stock  the live tests against the master of OpenSSH'
	@echo 'make unit         the unit tests alone'
	@echo 'make fuzz         the fuzzers: their corpus, FUZZ_RUNS=2000 mutations of it;'
	@echo '                  make fuzz SECONDS=60: each so long with libFuzzer (clang)'
	@echo 'make coverage     lines and branches that the suite runs'
	@echo 'make soak         everything at random for MINUTES=60, from a SEED='
	@echo 'make bench        side by side with the master and client of OpenSSH'
	@echo 'make ram          the static memory of the binary, owner by owner'
	@echo 'make cross TARGET=  dist/sshmux-VERSION-TARGET, static; make dist: all of'
	@echo '                  $(CROSS_TARGETS)'
	@echo 'make install      PREFIX=/usr/local DESTDIR='
	@echo 'make ipk, apk     packages for OpenWrt, in dist/'
	@echo 'make release      tarball of the sources and a package for a feed, in dist/'
	@echo 'make clean'
	@echo
	@echo 'PROFILE=router  SANITIZE=1  CHECKS=1  CC=clang  SSHMUX=binary to test'
	@echo 'DROPBEAR_VERSION=2025.89  DROPBEAR_TARBALL=file  DROPBEAR_SRC=dir'
	@echo 'SODIUM=0: the ciphers of dropbear alone  LIBSODIUM_TARBALL=  BEARSSL_TARBALL='

check:
	$(SETUP) build check
	@$(if $(filter 91-luci,$(or $(TESTS),91-luci)),tests/setup browser || :,:)
	@+$(AGAIN) $(if $(SSHMUX),,$(PROGRAM)) $(TEST_OBJECTS)
	@$(RUN) tests/run $(TESTS)

check-stock:
	$(SETUP) build check
	@+$(AGAIN) $(TOOLS) $(HOMELIB)
	@$(RUN) MASTER=stock UNIT= tests/run $(TESTS)

check-more:
	$(SETUP) build static check more
	@.ci/more

unit:
	$(NEEDS) build
	@+$(AGAIN) $(O)/unit
	@$(O)/unit

ifeq ($(SECONDS),)
fuzz:
	$(NEEDS) build
	@+$(AGAIN) $(FUZZERS)
	@for f in $(FUZZ); do printf '%s: ' $$f; $(O)/fuzz_$$f tests/corpus/$$f || exit; done
else
fuzz:
	$(SETUP) build fuzz
	@+$(AGAIN) O=build/fuzz CC=clang SANITIZE=1 LDFLAGS=-fsanitize=fuzzer \
		OPT='-O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link -DLIBFUZZER' \
		$(FUZZ:%=build/fuzz/fuzz_%)
	@tests/fuzz $(SECONDS) $(FUZZ)
endif

# The whole suite (or TESTS) with gcov; dropbear's own files are not counted.  SANITIZE=1
# and CHECKS=1 go together with it.
coverage:
	$(SETUP) build check
	@tests/coverage $(TESTS)

soak:
	$(SETUP) build check
	@+$(AGAIN) $(if $(SSHMUX),,$(PROGRAM)) $(TOOLS) $(HOMELIB)
	@$(RUN) tests/soak $(or $(MINUTES),60) $(SEED)

demo:
	$(SETUP) build demo
	@+$(AGAIN) $(if $(SSHMUX),,$(PROGRAM)) $(HOMELIB)
	@$(RUN) tests/demo

bench:
	$(SETUP) build check static
	@+$(AGAIN) STATIC=1 sshmux-static
	@+$(AGAIN) STATIC=1 PROFILE=router build/$(DROPBEAR_VERSION)-musl-gcc-static-router/sshmux
	@+$(AGAIN) $(HOMELIB) $(TOOLS) $(O)/herd
	@for b in run flat memory flow reports mips; do $(RUN) SSHMUX="$(if $(SSHMUX),$(SSHMUX),./sshmux-static)" \
		tests/bench/$$b || exit; done
	@$(O)/herd

ram:
	@+$(AGAIN) $(O)/sshmux $(O)/ram
	@size $(O)/sshmux
	@$(O)/ram $$(size $(O)/sshmux | awk 'NR == 2 { print $$2 + $$3 }')

install: all
	install -D -m 755 $(UNDER_TEST) $(DESTDIR)$(PREFIX)/bin/sshmux
	for f in $(wildcard sshmux.1); do \
		install -D -m 644 $$f $(DESTDIR)$(PREFIX)/share/man/man1/$$f; done
	for f in $(wildcard LICENSE README.md SECURITY.md); do \
		install -D -m 644 $$f $(DESTDIR)$(PREFIX)/share/doc/sshmux/$$f; done

# For scripts: where the objects of this variant are; the programs of the tests
objects:
	@echo $(O)
test-objects:
	@+$(AGAIN) $(TEST_OBJECTS)

clean:
	rm -rf build dist sshmux sshmux-static

include port/dropbear/dropbear.mk
WAYS = $(if $(CIPHERS),$(O)/ciphers $(O)/sshmux-ways)
include port/cross/cross.mk
include port/busybox/vm.mk

$(PROGRAM): $(O)/sshmux FORCE
	@cmp -s $< $@ || { cp $< $@.new && mv $@.new $@; }

# A static binary brings its own printf and malloc: see there.
SMALL := $(if $(STATIC),$(O)/small.o)
$(O)/sshmux: $(O)/sshmux.o $(O)/linux.o $(O)/confine.o $(SMALL) $(O)/libtransport.a
	$(LINK) $(WHOLE) -o $@ $^

$(O)/linux.o: port/linux.c $(O)/flags
	$(OWN) -c -o $@ $<

$(O)/small.o: port/static/small.c $(O)/flags
	$(OWN) -fno-lto -fno-builtin -c -o $@ $<

# Changes only when the command line does: then our objects are made again.
$(O)/flags: FORCE | $(O)
	@echo '$(OWN)' | cmp -s - $@ || echo '$(OWN)' >$@

$(O)/sshmux.o: sshmux.c $(O)/flags
	$(OWN) -c -o $@ $<

$(O)/confine.o: port/confine.c port/confine.list $(O)/flags
	$(OWN) -c -o $@ $<

$(O)/confine-kills.o: port/confine.c port/confine.list $(O)/flags
	$(OWN) -DCONFINE_KILLS -c -o $@ $<

$(O)/unit: $(O)/unit.o $(O)/confine.o $(O)/fake.o
	$(LINK) -o $@ $^

FUZZ_WORLD = mux ssh proxy socks options config
FUZZ_TRANSPORT = hosts keys login
FUZZ = $(FUZZ_WORLD) $(FUZZ_TRANSPORT)
FUZZERS = $(FUZZ:%=$(O)/fuzz_%)

# The programs of the tests; those of one test alone are built only for it.
for = $(if $(strip $(TESTS)),$(if $(filter $1,$(TESTS)),$2),$2)
TEST_OBJECTS = $(TOOLS) $(HOMELIB) $(call for,unit,$(O)/unit) $(call for,07-fuzz,$(FUZZERS)) \
	$(call for,14-ciphers,$(WAYS)) $(call for,14-conform,$(CONFORM)) \
	$(call for,13-logins,$(O)/logins) \
	$(call for,87-nomalloc,$(NOMALLOC)) $(call for,88-herd,$(O)/herd)
$(FUZZ_WORLD:%=$(O)/fuzz_%): %: %.o $(O)/confine.o $(O)/fake.o
	$(LINK) -o $@ $^

LOGINS = $(FUZZ_TRANSPORT:%=$(O)/fuzz_%) $(O)/logins
$(LOGINS): %: %.o $(O)/libtransport.a
	$(LINK) -o $@ $^

$(LOGINS:%=%.o): $(O)/%.o: tests/%.c $(O)/flags $(TP_GUARD)
	$(TP_OWN_CC) -MMD -MP -c -o $@ $<

# (Each includes all of sshmux.c: without optimization it compiles in a quarter of the time.)
$(O)/unit.o $(O)/fake.o $(FUZZ_WORLD:%=$(O)/fuzz_%.o): $(O)/%.o: tests/%.c $(O)/flags
	$(OWN) $(if $(SANITIZE)$(TARGET),,-U_FORTIFY_SOURCE -O0) -c -o $@ $<

# The programs of the tests: always plain native ones.
$(TOOLS): $(O)/%: tests/%.c | $(O)
	$(if $(STATIC)$(TARGET),gcc,$(CC)) -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE -O1 -g -o $@ $<

# The program whose allocator ends it (not with sanitizers, which have their own), and
# so does a system call that a running master is not to make.
NOMALLOC = $(if $(SANITIZE),,$(O)/sshmux-nomalloc)
$(O)/sshmux-nomalloc: tests/nomalloc.c $(O)/sshmux.o $(O)/linux.o $(O)/confine-kills.o $(O)/libtransport.a
	$(LINK) -std=c11 -Wall -Wextra -Werror -fno-builtin -D_GNU_SOURCE -o $@ $^

CONFORM = $(O)/conform $(O)/conform-fake
$(O)/conform.o: tests/conform.c $(O)/flags
	$(OWN) -c -o $@ $<

$(O)/conform-fake.o: tests/conform.c $(O)/flags
	$(OWN) -DCONFORM_FAKE -c -o $@ $<

$(O)/conform: $(O)/conform.o $(O)/linux.o $(O)/libtransport.a
	$(LINK) -o $@ $^

$(O)/conform-fake: $(O)/conform-fake.o $(O)/fake.o
	$(LINK) -o $@ $^

$(O)/herd.o: tests/herd.c $(O)/flags
	$(OWN) -c -o $@ $<

$(O)/herd: $(O)/herd.o $(O)/confine.o $(O)/fake.o
	$(LINK) -o $@ $^

$(O)/ram.o: tests/ram.c $(O)/flags
	$(OWN) -c -o $@ $<

$(O)/ram: $(O)/ram.o $(O)/confine.o $(O)/fake.o
	$(LINK) -o $@ $^

# Each way of each cipher, by known answers
$(O)/ciphers.o: tests/ciphers.c port/dropbear/ciphers.c $(O)/flags $(TP_GUARD) $(CI_SOURCES)
	$(TP_OWN_CC) -MMD -MP -Iport/dropbear -c -o $@ $<

$(O)/ciphers: $(O)/ciphers.o $(O)/libtransport.a
	$(LINK) -o $@ $^

# The program, and which ways it may go says the environment
$(O)/sshmux-ways: tests/ways.c $(O)/sshmux.o $(O)/linux.o $(O)/confine.o $(O)/libtransport.a
	$(LINK) -std=c11 -Wall -Wextra -Werror -o $@ $^

$(HOMELIB): tests/home.c | $(O)
	$(if $(STATIC)$(TARGET),gcc,$(CC)) -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE -O1 -shared -fPIC -o $@ $< -ldl

$(O):
	@mkdir -p $@

include port/openwrt/openwrt.mk
-include $(wildcard $(O)/*.d)

.PHONY: all static help check check-stock check-more unit fuzz soak coverage demo bench ram install objects test-objects clean FORCE
.DELETE_ON_ERROR:
