//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-encoding
//#ExpectChanged: mark
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* A flag is another bit now: objects that exist have the old one, and so does code that stays. */
struct object {
    unsigned flags;
    int count;
};

__attribute__((noinline)) void mark(struct object *object) {
    object->flags |= NEW ? 8 : 4;
    object->count++;
}
__attribute__((noinline)) int marked(struct object *object) { return object->flags & 4 ? object->count : 0; }
