//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: call-moved
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* Who frees: an object that old code reset would be freed twice. */
#include <stdlib.h>
struct object { char *buffer; long used; };
__attribute__((noinline)) void reset(struct object *o) {
#if !NEW
    free(o->buffer);
#endif
    o->used = 0;
}
__attribute__((noinline)) void destroy(struct object *o) {
#if NEW
    free(o->buffer);
#endif
    o->used = -1;
}
__attribute__((noinline)) int prepare(struct object *o) { o->buffer = malloc(64); return o->buffer ? 0 : -1; }
