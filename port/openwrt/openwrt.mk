# openwrt.mk - packages for OpenWrt in dist/, from the binaries of `make cross`.
#
#   make ipk, make apk                    for every target
#   make ipk TARGET=mipsel-24kc           for one
#
# Included by the top-level Makefile.

OPENWRT_TARGETS = $(or $(TARGET),mips-24kc mipsel-24kc armv7 armv5 aarch64 x86_64 i386 riscv64)
OPENWRT_VERSION = $(shell sed -n 's/^\#define SSHMUX_VERSION "\(.*\)"$$/\1/p' config.h)

ipk apk:
	@+for t in $(OPENWRT_TARGETS); do \
		$(AGAIN) cross TARGET=$$t && \
		port/openwrt/pack $@ $$t dist/sshmux-$(OPENWRT_VERSION)-$$t dist || exit; \
	done

.PHONY: ipk apk
