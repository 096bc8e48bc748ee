//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Fix: the second field of a record is kept in the order of the network as well. */
#include <stdint.h>

struct rec {
    uint32_t id, len;
};

void rec_make(struct rec *r, uint32_t id, uint32_t len) {
    r->id = __builtin_bswap32(id);
#if NEW
    r->len = __builtin_bswap32(len);
#else
    r->len = len;
#endif
}

uint32_t rec_len(struct rec *r, uint32_t *id) {
    *id = __builtin_bswap32(r->id);
#if NEW
    return __builtin_bswap32(r->len);
#else
    return r->len;
#endif
}
