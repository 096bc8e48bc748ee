//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: struct-layout
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* A field is appended to an object that a private function allocates: nothing
 * moves, but objects that exist end before it. */
#include <stdlib.h>

struct object {
    long size, used, kind;
#if NEW
    long limit;
#endif
};

__attribute__((noinline)) void *must_have(size_t bytes) {
    void *object = malloc(bytes);
    if (!object)
        abort();
    return object;
}
__attribute__((noinline)) struct object *make(long size) {
    struct object *object = must_have(sizeof *object);
    object->size = size;
    object->used = 0;
#if NEW
    object->limit = 9;
#endif
    return object;
}
__attribute__((noinline)) long kind(struct object *object) {
#if NEW
    if (object->limit < object->size)
        return -1;
#endif
    return object->kind;
}
