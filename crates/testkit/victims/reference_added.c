//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Fix of a use after free: a lookup takes a reference, and who is done gives it back. */
#include <stdlib.h>

struct sess {
    int id;
    int refs;
    struct sess *next;
    char key[32];
};
static struct sess *all;

static __attribute__((noinline)) void sess_put(struct sess *s) {
    if (--s->refs == 0) {
        for (struct sess **p = &all; *p; p = &(*p)->next)
            if (*p == s) {
                *p = s->next;
                break;
            }
        free(s);
    }
}

void sess_add(int id) {
    struct sess *s = calloc(1, sizeof *s);
    s->id = id;
    s->refs = 1;
    s->next = all;
    all = s;
}

struct sess *sess_lookup(int id) {
    for (struct sess *s = all; s; s = s->next)
        if (s->id == id) {
#if NEW
            s->refs++;
#endif
            return s;
        }
    return NULL;
}

int sess_done(struct sess *s) {
    int id = s->id;
#if NEW
    sess_put(s);
#endif
    return id;
}

void sess_drop(struct sess *s) {
    sess_put(s);
}

int sess_refs(struct sess *s) {
    return s->refs;
}
