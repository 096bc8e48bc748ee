//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-encoding
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* A field grows into the padding behind it: nothing moves, and old objects have anything there. */
struct object {
    long kind;
#if NEW
    long count;
#else
    int count;
#endif
    long last;
};

__attribute__((noinline)) void add(struct object *object) { object->count++; }
__attribute__((noinline)) long total(struct object *object) { return object->count * 3; }
__attribute__((noinline)) long last(struct object *object) { return object->last; }
