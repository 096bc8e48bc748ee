//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-meaning
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* A field of four bytes is a whole number now. */
struct object { long id; 
#if NEW
 int rate;
#else
 float rate;
#endif
};
__attribute__((noinline)) void set(struct object *o, int r) { o->rate = r; o->id++; }
__attribute__((noinline)) int get(struct object *o) { return o->rate; }
