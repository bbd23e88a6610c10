# vm.mk - make check-vm: the router binaries on router machines, see the script.
# Included by the top-level Makefile, after port/cross/cross.mk.

VM_MACHINES := malta virt
VM_TARGETS := mipsel-24kc armv7
VM_FLOCKS := $(VM_TARGETS:%=build/vm/flock-%)

check-vm:
	$(SETUP) build check vm $(call cross_sets,$(VM_TARGETS))
	@+$(AGAIN) $(VM_TARGETS:%=$(DIST)%) $(HOMELIB)
	@+$(AGAIN) $(VM_FLOCKS)
	@VERSION=$(VERSION) MUXC=$(CURDIR)/$(O)/muxc SSHMUX=none FLOCKS=build/vm port/busybox/vm check $(VM_MACHINES)

$(VM_FLOCKS): build/vm/flock-%: port/busybox/flock.c | build/musl-%/specs
	@mkdir -p $(@D)
	$(call cross_cc,$*) -specs=build/musl-$*/specs -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE -Os \
		-static -no-pie -s -o $@ $<

.PHONY: check-vm
