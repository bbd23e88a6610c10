# dropbear.mk - builds $(O)/libtransport.a: port/transport.h on dropbear.
#
# Included by the top-level Makefile, which has set
#   O                 object directory of this build variant
#   CC AR OPT CFLAGS  compilers and flags; CC may be a cross compiler
#   PROFILE_CPPFLAGS  -DPROFILE_ROUTER or nothing
#   SANITIZE          -fsanitize=… or nothing
# and may set DROPBEAR_VERSION, DROPBEAR_SRC=DIR, DROPBEAR_TARBALL=FILE.
#
# Everything is in sections of its own: link with -Wl,--gc-sections.  Dropbear
# is compiled as it comes, without configure (see config.h).

DROPBEAR_VERSION ?= 2026.94
TP_PORT := port/dropbear
TP_SRC := $(or $(DROPBEAR_SRC),build/dropbear-$(DROPBEAR_VERSION))
TP_O := $(O)/transport

# SODIUM=0: dropbear's own ciphers alone, without libsodium and BearSSL.
include port/dropbear/ciphers.mk

# --- what is compiled ---------------------------------------------------------

TP_OWN := transport session auth identity agent hostkey prompt algorithms signature arena glue $(if $(CIPHERS),ciphers)

TP_DROPBEAR := atomicio bignum buffer $(if $(CIPHERS),,chachapoly) cli-kex common-algo common-kex \
	compat crypto_desc curve25519 dbctype dbhelpers dbrandom dbutil dh_groups \
	ecc ecdsa ed25519 kex-dh kex-ecdh kex-pqhybrid kex-x25519 keyimport list \
	ltc_prng mlkem768 netio packet process-packet queue rsa signkey \
	signkey_ossh sntrup761

TP_TOMCRYPT := ciphers/aes/aes hashes/helper/hash_memory hashes/sha1 \
	hashes/sha2/sha256 hashes/sha2/sha384 hashes/sha2/sha512 \
	mac/hmac/hmac_done mac/hmac/hmac_init mac/hmac/hmac_process \
	mac/poly1305/poly1305 math/ltm_desc math/multi \
	misc/base64/base64_decode misc/base64/base64_encode \
	misc/crypt/crypt_cipher_descriptor misc/crypt/crypt_cipher_is_valid \
	misc/crypt/crypt_find_cipher misc/crypt/crypt_find_hash \
	misc/crypt/crypt_hash_descriptor misc/crypt/crypt_hash_is_valid \
	misc/crypt/crypt_ltc_mp_descriptor misc/crypt/crypt_prng_descriptor \
	misc/crypt/crypt_prng_is_valid misc/crypt/crypt_register_cipher \
	misc/crypt/crypt_register_hash misc/crypt/crypt_register_prng misc/zeromem \
	modes/ctr/ctr_decrypt modes/ctr/ctr_encrypt modes/ctr/ctr_start \
	pk/ecc/ecc pk/ecc/ecc_ansi_x963_export pk/ecc/ecc_free pk/ecc/ecc_make_key \
	pk/ecc/ltc_ecc_is_valid_idx pk/ecc/ltc_ecc_map pk/ecc/ltc_ecc_mul2add \
	pk/ecc/ltc_ecc_mulmod_timing pk/ecc/ltc_ecc_points \
	pk/ecc/ltc_ecc_projective_add_point pk/ecc/ltc_ecc_projective_dbl_point \
	stream/chacha/chacha_crypt stream/chacha/chacha_ivctr64 \
	stream/chacha/chacha_keystream stream/chacha/chacha_setup

TP_TOMMATH := cutoffs mp_2expt mp_abs mp_add mp_add_d mp_addmod mp_clamp \
	mp_clear mp_clear_multi mp_cmp mp_cmp_d mp_cmp_mag mp_cnt_lsb mp_copy \
	mp_count_bits mp_div mp_div_2 mp_div_2d mp_div_3 mp_div_d mp_dr_is_modulus \
	mp_dr_reduce mp_dr_setup mp_exch mp_exptmod mp_from_ubin mp_gcd mp_get_i32 \
	mp_get_i64 mp_get_l mp_get_mag_u32 mp_get_mag_u64 mp_get_mag_ul mp_grow \
	mp_init mp_init_copy mp_init_multi mp_init_set mp_init_size mp_init_u32 \
	mp_invmod mp_is_square mp_lcm mp_lshd mp_mod mp_mod_2d mp_mod_d \
	mp_montgomery_calc_normalization mp_montgomery_reduce mp_montgomery_setup \
	mp_mul mp_mul_2 mp_mul_2d mp_mul_d mp_mulmod mp_neg \
	mp_radix_smap mp_rand \
	mp_read_radix mp_reduce mp_reduce_2k mp_reduce_2k_l mp_reduce_2k_setup \
	mp_reduce_2k_setup_l mp_reduce_is_2k mp_reduce_setup \
	mp_rshd mp_set mp_set_u32 mp_set_u64 mp_set_ul mp_sqr mp_sqrmod mp_sqrt \
	mp_sub mp_sub_d mp_submod mp_to_radix mp_to_ubin mp_ubin_size mp_zero \
	s_mp_add s_mp_balance_mul s_mp_exptmod_fast \
	s_mp_invmod_fast s_mp_montgomery_reduce_fast \
	s_mp_mul_digs s_mp_mul_digs_fast s_mp_mul_high_digs \
	s_mp_mul_high_digs_fast  s_mp_reverse s_mp_sqr \
	s_mp_sqr_fast s_mp_sub

TP_OWN_OBJS := $(TP_OWN:%=$(TP_O)/%.o)
TP_DROPBEAR_OBJS := $(TP_DROPBEAR:%=$(TP_O)/dropbear/%.o)
TP_TOMCRYPT_OBJS := $(TP_TOMCRYPT:%=$(TP_O)/tomcrypt/%.o)
TP_TOMMATH_OBJS := $(TP_TOMMATH:%=$(TP_O)/tommath/bn_%.o)
TP_OBJS := $(TP_OWN_OBJS) $(TP_DROPBEAR_OBJS) $(TP_TOMCRYPT_OBJS) $(TP_TOMMATH_OBJS) $(CI_OBJS)

# --- how ----------------------------------------------------------------------

TP_FLAGS = $(OPT) $(LTO) $(CFLAGS) $(SANITIZE) -ffunction-sections -fdata-sections
TP_CPPFLAGS = -D_GNU_SOURCE -DDROPBEAR_CLIENT=1 -DLOCALOPTIONS_H_EXISTS \
	$(PROFILE_CPPFLAGS) $(CIPHERS) $(CPPFLAGS) -I$(TP_PORT) -I$(TP_O) -include $(TP_PORT)/guard.h
# (Its messages name its files: the same wherever they were compiled.)
TP_DROPBEAR_CC = $(CC) $(TP_FLAGS) -std=gnu99 -w -fmacro-prefix-map=$(TP_SRC)/= -I$(TP_PORT)/shim $(TP_CPPFLAGS) \
	-I$(TP_SRC)/src -I$(TP_SRC)/libtomcrypt/src/headers -I$(TP_SRC)/libtommath
TP_OWN_CC = $(CC) $(TP_FLAGS) -std=c11 $(COVERED) -Wall -Wextra -Werror -DPORT_OWN_FILE \
	$(TP_CPPFLAGS) $(CI_INCLUDES) -isystem $(TP_SRC)/src \
	-isystem $(TP_SRC)/libtomcrypt/src/headers -isystem $(TP_SRC)/libtommath
TP_HEADERS := $(TP_PORT)/guard.h $(TP_PORT)/config.h $(TP_PORT)/localoptions.h \
	$(TP_PORT)/shim/assert.h $(TP_PORT)/dropbear.mk config.h
TP_GUARD := $(TP_O)/default_options_guard.h

# `make V=1` shows the commands.
TP_AT := $(if $(V),,@)

# The file changes only when the command line does; all objects depend on it.
$(TP_O)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(TP_SRC) $(TP_DROPBEAR_CC)' | cmp -s - $@ || \
		echo '$(TP_SRC) $(TP_DROPBEAR_CC)' >$@
FORCE:

ifeq ($(DROPBEAR_SRC),)
$(TP_SRC)/src/packet.c:
	$(TP_AT)DROPBEAR_TARBALL='$(DROPBEAR_TARBALL)' $(TP_PORT)/fetch $(DROPBEAR_VERSION) $(TP_SRC)
endif

# Dropbear's defaults, each one overridable: made by dropbear's own script.
$(TP_GUARD): $(TP_O)/flags | $(TP_SRC)/src/packet.c
	sh $(TP_SRC)/src/ifndef_wrapper.sh <$(TP_SRC)/src/default_options.h >$@.new
	mv $@.new $@

$(TP_OWN_OBJS): $(TP_O)/%.o: $(TP_PORT)/%.c $(TP_PORT)/port.h port/transport.h \
		$(TP_HEADERS) $(TP_GUARD) $(CI_SOURCES)
	@echo '  CC $<'
	$(TP_AT)$(TP_OWN_CC) -c $< -o $@

# The tables that it negotiates with are ours; its own are what we choose from.
$(TP_O)/dropbear/common-algo.o: TP_FILE = -Dsshkex=dropbear_kex -Dsigalgs=dropbear_keys \
	-Dsshciphers=dropbear_ciphers -Dsshhashes=dropbear_hashes

# The place where rsa-sha2-512 differs from rsa-sha2-256 (signature.c).
$(TP_O)/dropbear/rsa.o: TP_FILE = -Dbytes_to_mp=port_rsa_message

# packet.c reads and writes the network through our buffer and counters, and
# encrypts a long message where it was built.
$(TP_O)/dropbear/packet.o: TP_FILE = -U_FORTIFY_SOURCE -Dread=port_read -Dwritev=port_writev \
	-Dgenrandom=port_padding -Dbuf_new=port_packet -Dmemcpy=port_copy

# dbctype.c is missing from 2025.89: an empty object takes its place.
$(TP_DROPBEAR_OBJS): $(TP_O)/dropbear/%.o: $(TP_HEADERS) $(TP_GUARD)
	@mkdir -p $(@D)
	@echo '  CC dropbear/$*.c'
	$(TP_AT)f=$(TP_SRC)/src/$*.c; test -f $$f || f='-x c /dev/null'; \
		$(TP_DROPBEAR_CC) $(TP_FILE) -c $$f -o $@

# The two loops where -O3 pays.
$(TP_O)/tomcrypt/stream/chacha/chacha_crypt.o \
$(TP_O)/tomcrypt/mac/poly1305/poly1305.o: TP_FILE = -O3

# A third of the time, for 11 KB: 20 ms less of a login with sntrup761x25519-sha512.
ifeq ($(findstring PROFILE_ROUTER,$(PROFILE_CPPFLAGS)),)
$(TP_O)/dropbear/sntrup761.o: TP_FILE = -O2 -ftree-vectorize
endif

# Its word-wise loops read unaligned words, which sanitizers refuse.
ifneq ($(SANITIZE),)
$(TP_TOMCRYPT_OBJS): TP_CPPFLAGS += -DLTC_NO_FAST
endif

# AES and HMAC stand behind chacha20 with Poly1305: on small devices the tables of
# the one may be computed, and the rounds of the other be a loop.
ifneq ($(findstring PROFILE_ROUTER,$(PROFILE_CPPFLAGS)),)
$(TP_O)/tomcrypt/ciphers/aes/aes.o $(TP_O)/tomcrypt/hashes/sha2/sha256.o: TP_FILE = -DLTC_SMALL_CODE
endif

$(TP_TOMCRYPT_OBJS): $(TP_O)/tomcrypt/%.o: $(TP_HEADERS) $(TP_GUARD)
	@mkdir -p $(@D)
	@echo '  CC tomcrypt/$*.c'
	$(TP_AT)$(TP_DROPBEAR_CC) $(TP_FILE) -DLTC_SOURCE -c $(TP_SRC)/libtomcrypt/src/$*.c -o $@

$(TP_TOMMATH_OBJS): $(TP_O)/tommath/%.o: $(TP_HEADERS) $(TP_GUARD)
	@mkdir -p $(@D)
	@echo '  CC tommath/$*.c'
	$(TP_AT)$(TP_DROPBEAR_CC) -c $(TP_SRC)/libtommath/$*.c -o $@

$(O)/libtransport.a: $(TP_OBJS) $(TP_PORT)/dropbear.mk
	@echo '  AR $@'
	$(TP_AT)rm -f $@
	$(TP_AT)$(AR) rcs $@ $(TP_OBJS)
