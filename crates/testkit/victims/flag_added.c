//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Fix: only what was validated is used; a bit that was free in the flags says so. */
#include <string.h>

#define F_OPEN 1
#define F_DIRTY 2
#define F_VALID 4

struct req {
    int flags;
    int len;
    char *body;
};

void req_parse(struct req *r, char *body, int len) {
    r->body = body;
    r->len = len;
    r->flags |= F_OPEN;
#if NEW
    if (len >= 0 && memchr(body, 0, len) == 0)
        r->flags |= F_VALID;
#endif
}

int req_use(struct req *r) {
#if NEW
    if (!(r->flags & F_VALID))
        return -1;
#endif
    return r->len * 2;
}

int req_close(struct req *r) {
    r->flags &= ~F_OPEN;
    return memchr("a", r->flags, 1) != 0;
}
