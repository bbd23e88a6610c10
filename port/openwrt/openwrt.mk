# openwrt.mk - packages for OpenWrt in dist/, from the binaries of `make cross`.
#
#   make ipk, make apk                    for every target
#   make ipk TARGET=mipsel-24kc           for one; the package of LuCI's views in any case
#   make pot                              the template for translators of these
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
	@port/openwrt/pack $@ luci dist

# LuCI's views: what translators start from
pot:
	port/openwrt/luci-app-sshmux/pot >port/openwrt/luci-app-sshmux/po/templates/sshmux.pot.new
	mv port/openwrt/luci-app-sshmux/po/templates/sshmux.pot.new port/openwrt/luci-app-sshmux/po/templates/sshmux.pot

release:
	@port/openwrt/release dist

.PHONY: ipk apk pot release
