# cross.mk - static binaries for the CPUs of routers: `make cross TARGET=...`,
# `make dist` for all of them.
#
# Each is linked with a musl of its own, built below build/musl-TARGET for
# exactly the instructions of that CPU.  The compilers are Debian's.  Included
# by the top-level Makefile, which it runs once more with TARGET and CC set.
#
#   CROSS_TARGET   compiler's prefix (or clang-19, see clang), musl's name for the CPU,
#                  qemu's words, with commas for blanks, then the flags
#
# Routers' MIPS and PowerPC CPUs have no FPU, and their kernels do not stand in for one:
# there nothing may contain a floating-point instruction, libc and libgcc included
# (see libgcc.c and gate).  armv7 does without an FPU too, since some have none
# (Cortex-A9 of bcm53xx); nothing here would gain from one.

CROSS_TARGETS := mips-24kc mipsel-24kc mips32 mipsel32 mips64 mips64el armv7 armv5 armv4 armeb aarch64 \
	x86_64 i386 i586 powerpc powerpc64 riscv64 loongarch64

CROSS_SOFT := -msoft-float -mno-abicalls -fno-pic
CROSS_MIPS := -mips32r2 -mtune=24kc $(CROSS_SOFT) -minterlink-mips16
# Addresses of 32 bits, and the program where these reach
CROSS_MIPS64 := -march=mips64r2 -mabi=64 $(CROSS_SOFT) -msym32 -Wl,-Ttext-segment=0x400000
# Our own code is in their short instructions, as OpenWrt's packages are: a third
# smaller.  The transport, which computes, and libc are not.
CROSS_OWN_mips-24kc := -mips16
CROSS_OWN_mipsel-24kc := -mips16
CROSS_mips-24kc := mips-linux-gnu- mips-linux-muslsf qemu-mips-static,-cpu,24Kc $(CROSS_MIPS)
CROSS_mipsel-24kc := mipsel-linux-gnu- mipsel-linux-muslsf qemu-mipsel-static,-cpu,24Kc $(CROSS_MIPS)
CROSS_mips32 := mips-linux-gnu- mips-linux-muslsf qemu-mips-static,-cpu,4Kc -march=mips32 $(CROSS_SOFT)
CROSS_mipsel32 := mipsel-linux-gnu- mipsel-linux-muslsf qemu-mipsel-static,-cpu,4Kc -march=mips32 $(CROSS_SOFT)
CROSS_mips64 := mips64-linux-gnuabi64- mips64-linux-muslsf qemu-mips64-static,-cpu,5KEc $(CROSS_MIPS64)
CROSS_mips64el := mips64el-linux-gnuabi64- mips64el-linux-muslsf qemu-mips64el-static,-cpu,5KEc $(CROSS_MIPS64)
CROSS_armv7 := arm-linux-gnueabi- arm-linux-musleabi qemu-arm-static,-cpu,cortex-a9 \
	-march=armv7-a -mthumb -mfloat-abi=soft
CROSS_armv5 := arm-linux-gnueabi- arm-linux-musleabi qemu-arm-static,-cpu,arm926 \
	-march=armv5te -marm -mfloat-abi=soft
CROSS_armv4 := arm-linux-gnueabi- arm-linux-musleabi qemu-arm-static,-cpu,sa1110 \
	-march=armv4 -marm -mfloat-abi=soft
CROSS_armeb := arm-linux-gnueabi- armeb-linux-musleabi qemu-armeb-static,-cpu,pxa255 \
	-mbig-endian -march=armv5te -marm -mfloat-abi=soft
CROSS_aarch64 := aarch64-linux-gnu- aarch64-linux-musl qemu-aarch64-static,-cpu,cortex-a53
CROSS_x86_64 := x86_64-linux-gnu- x86_64-linux-musl qemu-x86_64-static
CROSS_i386 := i686-linux-gnu- i386-linux-musl qemu-i386-static -march=i686
CROSS_i586 := i686-linux-gnu- i386-linux-musl qemu-i386-static,-cpu,pentium -march=i586
# What the 440's successors and the e500 have in common
CROSS_powerpc := powerpc-linux-gnu- powerpc-linux-muslsf qemu-ppc-static,-cpu,e500v2 \
	-mcpu=powerpc -msoft-float -mmultiple -mlong-double-64
# musl's ABI, in which Debian's own libgcc is not.  The e5500 has an FPU, but no vectors.
CROSS_powerpc64 := powerpc64-linux-gnu- powerpc64-linux-musl qemu-ppc64-static,-cpu,e5500 \
	-mabi=elfv2 -mcpu=e5500 -mlong-double-64
CROSS_riscv64 := riscv64-linux-gnu- riscv64-linux-musl qemu-riscv64-static
# Debian has no gcc; without the vectors, which clang would use
CROSS_loongarch64 := clang-19 loongarch64-linux-musl qemu-loongarch64-static \
	-march=loongarch64 -mabi=lp64d -mno-lsx

# Whose libgcc Debian does not have
CROSS_LIBGCC := mips% powerpc powerpc64 armv4 armeb i586 loongarch64

# Whose unit tests `make check-cross` runs, and who is built twice by it
CROSS_UNITS := mips-24kc mips64 armv5 powerpc
CROSS_ELSEWHERE := mips-24kc aarch64

MUSL_SRC := build/musl-1.2.5
VERSION := $(shell sed -n 's/^.define SSHMUX_VERSION "\(.*\)"/\1/p' config.h)
DIST := dist/sshmux-$(VERSION)-
# The small profile, unless one is asked for.
CROSS_PROFILE = $(if $(filter file,$(origin PROFILE)),router,$(PROFILE))

comma := ,
cross_set = $(word 1,$(CROSS_$1))
cross_prefix = $(filter-out clang%,$(cross_set))
cross_flags = $(wordlist 4,99,$(CROSS_$1))
cross_gcc = $(if $(cross_prefix),$(cross_prefix)gcc,$(CURDIR)/port/cross/clang --target=$(word 2,$(CROSS_$1)))
cross_cc = $(cross_gcc) $(cross_flags)

ifneq ($(filter cross,$(MAKECMDGOALS)),)
ifneq ($(words $(filter $(CROSS_TARGETS),$(TARGET))).$(words $(TARGET)),1.1)
$(error TARGET is one of $(CROSS_TARGETS), not "$(TARGET)")
endif
endif

# The sets of tests/setup that these targets need: their compilers' prefixes, or clang
cross_sets = cross $(sort $(foreach t,$1,$(call cross_set,$t)))

cross:
	$(SETUP) build $(call cross_sets,$(TARGET))
	@+$(AGAIN) $(DIST)$(TARGET)
	@ls -l $(DIST)$(TARGET)

dist:
	$(SETUP) build $(call cross_sets,$(CROSS_TARGETS))
	@+$(AGAIN) $(CROSS_TARGETS:%=$(DIST)%)
	@cd dist && sha256sum $(CROSS_TARGETS:%=sshmux-$(VERSION)-%) >SHA256SUMS
	@cd dist && wc -c $(CROSS_TARGETS:%=sshmux-$(VERSION)-%)

# The binary of this TARGET, by the rules of the top-level Makefile.  What is fetched is
# fetched here, once, and not by the make of each target.
$(CROSS_TARGETS:%=$(DIST)%): $(DIST)%: FORCE | $(TP_SRC)/src/packet.c $(MUSL_SRC)/configure $(CI_SOURCES)
	@+$(AGAIN) STATIC=1 TARGET=$* PROFILE=$(CROSS_PROFILE) AR=$(call cross_prefix,$*)ar \
		CC='$(call cross_cc,$*) -specs=build/musl-$*/specs' OWN_FLAGS='$(CROSS_OWN_$*)' LINK_STRIP=$(if $(call cross_prefix,$*),,-s) \
		$(if $(CROSS_TESTS),cross-tests) cross-binary

# The unit tests for that CPU, and what runs binary and tests on this one.  (A
# kernel that knows foreign binaries is needed only for -J, which starts sshmux again.)
EMULATE = $(subst $(comma),$(space),$(word 3,$(CROSS_$(TARGET))))
CROSS_UNIT = $(if $(filter $(CROSS_UNITS),$(TARGET)),$(O)/unit)
cross-tests: $(CROSS_UNIT) $(filter %/ciphers,$(WAYS))
	@for b in $(DIST)$(TARGET) $(CROSS_UNIT) $(filter %/ciphers,$(WAYS)); do \
		w=$(O)/emulated-$$(echo $${b##*/} | sed 's/-.*//'); \
		printf '#!/bin/sh\nexec $(EMULATE) %s "$$@"\n' $(CURDIR)/$$b >$$w && chmod 755 $$w || exit; done

cross-binary: $(O)/sshmux
	@mkdir -p dist
	@$(if $(call cross_prefix,$(TARGET)),$(call cross_prefix,$(TARGET))strip -o $(DIST)$(TARGET).new $<,cp $< $(DIST)$(TARGET).new)
	@cmp -s $(DIST)$(TARGET).new $(DIST)$(TARGET) || mv $(DIST)$(TARGET).new $(DIST)$(TARGET)
	@rm -f $(DIST)$(TARGET).new

# A new musl means new headers; and nothing is compiled before there is one.
ifneq ($(filter $(CROSS_TARGETS),$(TARGET)),)
$(O)/flags: | build/musl-$(TARGET)/specs
$(addprefix $(O)/,sshmux.o linux.o confine.o small.o unit.o fake.o ciphers.o) $(TP_OBJS): build/musl-$(TARGET)/specs
endif

$(MUSL_SRC)/configure: | port/cross/musl
	@echo '  FETCH $(@D)'
	@MUSL_TARBALL='$(MUSL_TARBALL)' port/cross/musl fetch $(@D)

# Changes only when the compiler or its flags do.
build/musl-%/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(call cross_cc,$*)' | cmp -s - $@ || echo '$(call cross_cc,$*)' >$@

$(CROSS_TARGETS:%=build/musl-%/specs): build/musl-%/specs: build/musl-%/flags \
		port/cross/musl port/cross/libgcc.c | $(MUSL_SRC)/configure
	@echo '  MUSL $*'
	@+CC='$(call cross_cc,$*)' TRIPLE=$(word 2,$(CROSS_$*)) \
		HELPERS=$(if $(filter $(CROSS_LIBGCC),$*),port/cross/libgcc.c) port/cross/musl build $(MUSL_SRC) $(@D)

# Builds all, then looks at them and runs them; see the script.
check-cross:
	$(SETUP) build check $(call cross_sets,$(CROSS_TARGETS))
	@+$(AGAIN) CROSS_TESTS=1 dist $(TOOLS) $(HOMELIB)
	@VERSION=$(VERSION) O='build/$(DROPBEAR_VERSION)-musl-static$(patsubst %,-%,$(filter-out default,$(CROSS_PROFILE)))' \
		PROFILE=$(CROSS_PROFILE) DROPBEAR_VERSION=$(DROPBEAR_VERSION) TOOLS=$(O) \
		ELSEWHERE='$(filter $(CROSS_TARGETS),$(CROSS_ELSEWHERE))' UNITS='$(CROSS_UNITS)' SUITE='$(TESTS)' port/cross/check $(CROSS_TARGETS)

.PHONY: cross dist check-cross cross-binary cross-tests
.PRECIOUS: build/musl-%/flags
