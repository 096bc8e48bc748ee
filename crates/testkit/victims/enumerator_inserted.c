//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-meaning
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* An enumerator is inserted: states that are stored go by their old numbers. */
enum state { IDLE, 
#if NEW
 WAITING,
#endif
 BUSY, DONE, FAILED };
struct object { enum state state; int n; };
__attribute__((noinline)) int begin(struct object *o, int n) { o->n = n; return n; }
__attribute__((noinline)) int busy(struct object *o) { return o->state == BUSY ? o->n : 0; }
__attribute__((noinline)) int done(struct object *o) { return o->state == DONE ? o->n * 3 : 1; }
__attribute__((noinline)) int failed(struct object *o) { return o->state == FAILED ? o->n - 4 : 5; }
__attribute__((noinline)) void to(struct object *o, enum state s) { o->state = s; }
