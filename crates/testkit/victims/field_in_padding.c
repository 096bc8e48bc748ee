//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-added
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* A new field in what was padding: objects that exist hold nothing there. */
struct object {
    long id;
    char kind;
#if NEW
    char closed;
#endif
    int count;
};
__attribute__((noinline)) void close_it(struct object *o) {
    o->kind = 0;
#if NEW
    o->closed = 1;
#endif
}
__attribute__((noinline)) void open_it(struct object *o, char kind) {
    o->kind = kind;
#if NEW
    o->closed = 0;
#endif
}
__attribute__((noinline)) int use(struct object *o) {
#if NEW
    if (o->closed) return -1;
#endif
    return o->count++;
}
