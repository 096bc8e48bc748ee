//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-encoding
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* Two flags changed places within one function. */
#define A (NEW ? 8 : 4)
#define B (NEW ? 4 : 8)
struct object { unsigned flags; int n; };
__attribute__((noinline)) int step(struct object *o) {
    if (o->flags & A) { o->flags |= B; return o->n; }
    o->flags |= A;
    return 0;
}
__attribute__((noinline)) int n(struct object *o) { return o->n; }
