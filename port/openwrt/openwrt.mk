# openwrt.mk - packages for OpenWrt in dist/, from the binaries of `make cross`.
#
#   make ipk, make apk                    for every target
#   make ipk TARGET=mipsel-24kc           for one
#   make release                          the sources and their sha256, for a feed
#
# Included by the top-level Makefile, as port/cross/cross.mk, which says what targets
# there are and where their binaries go.

OPENWRT_TARGETS = $(or $(TARGET),$(CROSS_TARGETS))

ipk apk:
	@+for t in $(OPENWRT_TARGETS); do \
		$(AGAIN) cross TARGET=$$t && \
		port/openwrt/pack $@ $$t $(DIST)$$t dist || exit; \
	done

release:
	@port/openwrt/release dist

.PHONY: ipk apk release
