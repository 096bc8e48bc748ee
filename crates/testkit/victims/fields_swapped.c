//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-offset
//#AlsoUnnamed: clang -O2
/* Two fields changed places; one function uses both. */
struct object {
#if NEW
    long b, a;
#else
    long a, b;
#endif
    long c;
};
__attribute__((noinline)) long step(struct object *o, long k) { o->a += k; o->b ^= o->a; return o->b; }
__attribute__((noinline)) long c(struct object *o) { return o->c; }
__attribute__((noinline)) long x(long *p) { return p[0] + p[1]*5; }
