//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-meaning
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* What marks "none" is another number. */
static int next_id;
struct object { int id, count; };
__attribute__((noinline)) int fresh(int want) { return want ? ++next_id : (NEW ? 0 : -1); }
__attribute__((noinline)) void bind(struct object *o, int want) { o->id = fresh(want); }
__attribute__((noinline)) int usable(struct object *o) { return o->id != (NEW ? 0 : -1) ? o->count : 0; }
