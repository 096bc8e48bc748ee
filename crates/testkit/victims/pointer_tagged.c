//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Fix of a double free: the low bit of a pointer says who owns it. */
#include <stdint.h>
#include <stdlib.h>

struct s {
    char *p;
};

void s_own(struct s *s, char *p) {
#if NEW
    s->p = (char *)((uintptr_t)p | 1);
#else
    s->p = p;
#endif
}

void s_borrow(struct s *s, char *p) {
    s->p = p;
}

char *s_get(struct s *s) {
#if NEW
    return (char *)((uintptr_t)s->p & ~(uintptr_t)1);
#else
    return s->p;
#endif
}

int live;

void s_drop(struct s *s) {
#if NEW
    if ((uintptr_t)s->p & 1) {
        free((char *)((uintptr_t)s->p & ~(uintptr_t)1));
        live--;
    }
#else
    free(s->p);
    live--;
#endif
    s->p = 0;
}
