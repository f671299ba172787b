/* A PKCS#11 module in front of SoftHSM2 that behaves as tokens do which SoftHSM2 is not: named as OP-TEE's, locked,
 * pulled out, with nonces of its own. AWKWARD names the trait; every login is counted in the file AWKWARD_LOG.
 * Only what is changed is written out; the order of the function list is that of PKCS#11 2.40, pkcs11f.h. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long ul;
struct list { unsigned char version[2]; void *call[68]; };
struct token_info { unsigned char label[32], maker[32], model[16], serial[16]; ul flags; };
struct mechanism { ul type; void *parameter; ul size; };
struct gcm { unsigned char *iv; ul iv_bytes; };
struct attribute { ul type; void *value; ul size; };

enum { FINALIZE = 1, GET_SLOT_LIST = 4, GET_TOKEN_INFO = 6, OPEN_SESSION = 12, CLOSE_SESSION = 13, LOGIN = 18 };
enum { GET_ATTRIBUTE = 24, ENCRYPT_INIT = 29, DECRYPT = 34, SIGN = 43 };
enum { DEVICE_ERROR = 0x30, TYPE_INVALID = 0x12, DATA_INVALID = 0x40, PIN_LOCKED = 0xA4, NOT_PRESENT = 0xE0, NOT_RECOGNISED = 0xE1 };

static struct list real, ours;
static int logins, sessions;

static int is(const char *trait) {
    const char *set = getenv("AWKWARD");
    return set && !strcmp(set, trait);
}

static ul get_slot_list(unsigned char present, ul *slots, ul *count) {
    if (is("no-slots")) return DEVICE_ERROR;
    return ((ul (*)(unsigned char, ul *, ul *))real.call[GET_SLOT_LIST])(present, slots, count);
}

static ul get_token_info(ul slot, struct token_info *info) {
    if (is("pulled")) return NOT_PRESENT;
    if (is("unknown-make")) return NOT_RECOGNISED;
    if (is("dead-slot")) return DEVICE_ERROR;
    ul rv = ((ul (*)(ul, struct token_info *))real.call[GET_TOKEN_INFO])(slot, info);
    if (is("optee")) {
        memset(info->maker, ' ', 32), memcpy(info->maker, "Linaro", 6);
        memset(info->model, ' ', 16), memcpy(info->model, "OP-TEE TA", 9);
        memset(info->serial, '0', 16);
    }
    if (is("final-try")) info->flags |= 0x30000;
    if (is("locked")) info->flags |= 0x40000;
    if (is("no-pin")) info->flags &= ~8UL;
    if (is("exchanged") && logins) memset(info->serial, '7', 16);
    return rv;
}

/* "two-sessions", "no-sessions": CKR_SESSION_COUNT beyond as many. */
static ul open_session(ul slot, ul flags, void *application, void *notify, ul *handle) {
    if (is("no-sessions") || (is("two-sessions") && sessions == 2)) return 0xB1;
    ul rv = ((ul (*)(ul, ul, void *, void *, ul *))real.call[OPEN_SESSION])(slot, flags, application, notify, handle);
    return sessions += !rv, rv;
}

static ul close_session(ul session) {
    sessions--;
    return ((ul (*)(ul))real.call[CLOSE_SESSION])(session);
}

static ul finalize(void *reserved) {
    sessions = 0;
    return ((ul (*)(void *))real.call[FINALIZE])(reserved);
}

static ul login(ul session, ul user, unsigned char *pin, ul size) {
    FILE *log = fopen(getenv("AWKWARD_LOG"), "a");
    fputs("login\n", log), fclose(log), logins++;
    if (is("login-locked")) return PIN_LOCKED;
    if (is("login-broken")) return DEVICE_ERROR;
    return ((ul (*)(ul, ul, unsigned char *, ul))real.call[LOGIN])(session, user, pin, size);
}

static ul get_attribute(ul session, ul object, struct attribute *wanted, ul count) {
    /* CKA_LOCAL, CKA_NEVER_EXTRACTABLE, CKA_ALWAYS_SENSITIVE; CKA_SENSITIVE; CKA_VALUE; CKA_EC_POINT */
    ul type = wanted->type;
    ul rv = ((ul (*)(ul, ul, struct attribute *, ul))real.call[GET_ATTRIBUTE])(session, object, wanted, count);
    for (ul at = 0; at < count; at++) {
        ul one = wanted[at].type, little = one == 0x163 || one == 0x164 || one == 0x165;
        if ((is("tells-little") && little) || (is("tells-nothing") && one == 0x103)) wanted[at].size = -1, rv = TYPE_INVALID;
    }
    if (is("long-secret") && type == 0x11 && !rv) {
        if (wanted->value) ((char *)wanted->value)[32] = 0;
        wanted->size = 33;
    }
    if (is("bare-point") && type == 0x180 && !rv) {
        if (wanted->value) memmove(wanted->value, (char *)wanted->value + 2, wanted->size - 2);
        wanted->size -= wanted->value ? 2 : 0;
    }
    return rv;
}

static ul encrypt_init(ul session, struct mechanism *mechanism, ul key) {
    if (is("own-nonce") && mechanism->type == 0x1087) {
        struct gcm *parameters = mechanism->parameter;
        memset(parameters->iv, 0xA5, parameters->iv_bytes);
    }
    return ((ul (*)(ul, struct mechanism *, ul))real.call[ENCRYPT_INIT])(session, mechanism, key);
}

static ul decrypt(ul session, unsigned char *sealed, ul size, unsigned char *text, ul *text_size) {
    ul rv = ((ul (*)(ul, unsigned char *, ul, unsigned char *, ul *))real.call[DECRYPT])(session, sealed, size, text,
                                                                                       text_size);
    return rv == 5 && is("says-why") ? DATA_INVALID : rv; /* CKR_GENERAL_ERROR */
}

static ul sign(ul session, unsigned char *text, ul size, unsigned char *signature, ul *signed_size) {
    ul rv = ((ul (*)(ul, unsigned char *, ul, unsigned char *, ul *))real.call[SIGN])(session, text, size, signature,
                                                                                    signed_size);
    if ((is("short-signature") || (is("short-ecdsa") && *signed_size == 64)) && signature) *signed_size -= 1;
    return rv;
}

ul C_GetFunctionList(struct list **list) {
    void *module = dlopen(SOFTHSM, RTLD_NOW | RTLD_LOCAL);
    struct list *there;
    if (!module || ((ul (*)(struct list **))dlsym(module, "C_GetFunctionList"))(&there)) return DEVICE_ERROR;
    real = ours = *there;
    ours.call[FINALIZE] = finalize;
    ours.call[OPEN_SESSION] = open_session;
    ours.call[CLOSE_SESSION] = close_session;
    ours.call[GET_SLOT_LIST] = get_slot_list;
    ours.call[GET_TOKEN_INFO] = get_token_info;
    ours.call[LOGIN] = login;
    ours.call[GET_ATTRIBUTE] = get_attribute;
    ours.call[ENCRYPT_INIT] = encrypt_init;
    ours.call[DECRYPT] = decrypt;
    ours.call[SIGN] = sign;
    *list = &ours;
    return 0;
}
