//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Hardening: a pointer that is kept is xored with a cookie. */
#include <unistd.h>

struct ev {
    long n;
    long (*cb)(long);
};

static unsigned long cookie;

__attribute__((constructor)) static void seed(void) {
    cookie = getpid() * 0x9e3779b97f4a7c15ul;
}

void ev_set(struct ev *e, long (*cb)(long)) {
#if NEW
    e->cb = (void *)((unsigned long)cb ^ cookie);
#else
    e->cb = cb;
#endif
}

long ev_run(struct ev *e) {
#if NEW
    return ((long (*)(long))((unsigned long)e->cb ^ cookie))(e->n);
#else
    return e->cb(e->n);
#endif
}

int check(unsigned long c) {
    return c == cookie;
}
