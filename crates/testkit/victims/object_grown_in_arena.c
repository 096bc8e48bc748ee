//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: object-size
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* The same from an arena: nothing says that the function allocates but what is
 * done with its result. */
#include <stddef.h>

struct object {
    long size, used, kind;
#if NEW
    long limit;
#endif
};
struct arena {
    char *at, *end;
};

__attribute__((noinline)) void *take(struct arena *arena, size_t bytes) {
    if ((size_t)(arena->end - arena->at) < bytes)
        return NULL;
    arena->at += bytes;
    return arena->at - bytes;
}
__attribute__((noinline)) struct object *make(struct arena *arena, long size) {
    struct object *object = take(arena, sizeof *object);
    if (!object)
        return NULL;
    object->size = size;
    object->used = 0;
#if NEW
    object->limit = 9;
#endif
    return object;
}
__attribute__((noinline)) long kind(struct object *object) { return object->kind + object->used; }
