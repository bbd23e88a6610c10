# ciphers.mk - libsodium and BearSSL, the few files of them that ciphers.c needs.
#
# Included by dropbear.mk.  SODIUM=0 leaves them out: then the ciphers are
# dropbear's own and there is no GCM.  LIBSODIUM_SRC, BEARSSL_SRC name sources,
# LIBSODIUM_TARBALL, BEARSSL_TARBALL tarballs; otherwise they are fetched.
#
# All files are compiled for every CPU: those for other CPUs come out empty.

ifneq ($(SODIUM),0)
CIPHERS := -DCIPHERS

CI_SODIUM_SRC := $(or $(LIBSODIUM_SRC),build/libsodium-1.0.22)
CI_BEARSSL_SRC := $(or $(BEARSSL_SRC),build/bearssl-0.6)
CI_SODIUM_DIR := $(CI_SODIUM_SRC)/src/libsodium

CI_SODIUM := sodium/runtime crypto_stream/chacha20/dolbeau/chacha20_dolbeau-avx2 \
	crypto_stream/chacha20/dolbeau/chacha20_dolbeau-ssse3 \
	crypto_stream/chacha20/ref/chacha20_ref \
	crypto_onetimeauth/poly1305/donna/poly1305_donna \
	crypto_onetimeauth/poly1305/sse2/poly1305_sse2 \
	crypto_aead/aes256gcm/aesni/aead_aes256gcm_aesni \
	crypto_aead/aes256gcm/armcrypto/aead_aes256gcm_armcrypto
CI_BEARSSL := aead/gcm codec/dec32be codec/dec32le codec/enc32be codec/enc32le \
	hash/ghash_ctmul hash/ghash_ctmul32 hash/ghash_ctmul64 hash/ghash_pclmul \
	symcipher/aes_common symcipher/aes_ct symcipher/aes_ct_enc symcipher/aes_ct_ctr \
	symcipher/aes_ct64 symcipher/aes_ct64_enc symcipher/aes_ct64_ctr \
	symcipher/aes_x86ni symcipher/aes_x86ni_ctr symcipher/chacha20_ct

CI_SODIUM_OBJS := $(CI_SODIUM:%=$(O)/transport/sodium/%.o)
CI_BEARSSL_OBJS := $(CI_BEARSSL:%=$(O)/transport/bearssl/%.o)
CI_OBJS := $(CI_SODIUM_OBJS) $(CI_BEARSSL_OBJS)
CI_SOURCES := $(CI_SODIUM_DIR)/sodium/runtime.c $(CI_BEARSSL_SRC)/src/aead/gcm.c
CI_INCLUDES := -isystem $(CI_SODIUM_DIR)/include/sodium -isystem $(CI_SODIUM_DIR)/include \
	-isystem $(CI_SODIUM_DIR) -isystem $(CI_BEARSSL_SRC)/inc

CI_CC = $(CC) $(TP_FLAGS) -std=gnu99 -w -D_GNU_SOURCE $(CPPFLAGS) -I$(TP_PORT)
CI_SODIUM_CC = $(CI_CC) -fmacro-prefix-map=$(CI_SODIUM_SRC)/= -include $(TP_PORT)/sodium.h \
	-I$(CI_SODIUM_DIR)/include/sodium -I$(CI_SODIUM_DIR)/include
CI_BEARSSL_CC = $(CI_CC) -fmacro-prefix-map=$(CI_BEARSSL_SRC)/= -I$(CI_BEARSSL_SRC)/inc \
	-I$(CI_BEARSSL_SRC)/src

# The loops over the bytes: what -O3 brings there was measured.
$(filter %poly1305_donna.o %armcrypto.o,$(CI_SODIUM_OBJS)): CI_OPT = -O3
$(filter %avx2.o %ssse3.o %poly1305_sse2.o,$(CI_SODIUM_OBJS)): CI_OPT = -O2
$(filter %chacha20_ct.o,$(CI_BEARSSL_OBJS)): CI_OPT = -O3
$(filter %ghash_pclmul.o %aes_x86ni_ctr.o,$(CI_BEARSSL_OBJS)): CI_OPT = -O2

# Its loops over 4 and 7 blocks must go, or it is slower than -O3's by half; that of
# the rounds may stay, as fast in a third of -O3's 62 KB.
$(filter %aesni.o,$(CI_SODIUM_OBJS)): CI_OPT = -O2 -fpeel-loops \
	--param max-completely-peel-times=7 --param max-inline-insns-single=30

# MIPS: Poly1305 as fast in 3 KB less, which pay for ChaCha20's rounds without their loop.
ifneq ($(filter mips-24kc mipsel-24kc mips32 mipsel32,$(TARGET)),)
$(filter %poly1305_donna.o,$(CI_SODIUM_OBJS)): CI_OPT = -O2 -fno-schedule-insns
$(filter %chacha20_ct.o,$(CI_BEARSSL_OBJS)): CI_OPT = -O3 --param max-completely-peeled-insns=800
endif

$(CI_SODIUM_OBJS): $(O)/transport/sodium/%.o: $(TP_PORT)/sodium.h $(O)/transport/flags $(CI_SOURCES)
	@mkdir -p $(@D)
	@echo '  CC sodium/$*.c'
	$(TP_AT)$(CI_SODIUM_CC) $(CI_OPT) -c $(CI_SODIUM_DIR)/$*.c -o $@

$(CI_BEARSSL_OBJS): $(O)/transport/bearssl/%.o: $(O)/transport/flags $(CI_SOURCES)
	@mkdir -p $(@D)
	@echo '  CC bearssl/$*.c'
	$(TP_AT)$(CI_BEARSSL_CC) $(CI_OPT) -c $(CI_BEARSSL_SRC)/src/$*.c -o $@

ifeq ($(LIBSODIUM_SRC),)
$(CI_SODIUM_DIR)/sodium/runtime.c:
	@echo '  FETCH libsodium'
	$(TP_AT)LIBSODIUM_TARBALL='$(LIBSODIUM_TARBALL)' $(TP_PORT)/fetch-ciphers libsodium $(CI_SODIUM_SRC)
endif
ifeq ($(BEARSSL_SRC),)
$(CI_BEARSSL_SRC)/src/aead/gcm.c:
	@echo '  FETCH bearssl'
	$(TP_AT)BEARSSL_TARBALL='$(BEARSSL_TARBALL)' $(TP_PORT)/fetch-ciphers bearssl $(CI_BEARSSL_SRC)
endif
endif
