//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The address is in a structure on the stack, which a callee gets by its address. */
#include "data_in_code_hidden.h"
struct ops { int (*f)(int); int bias; };
__attribute__((noinline, noclone)) static int call_it(const struct ops *o, int n) { return o->f(n) + o->bias; }
__attribute__((noipa)) static int run(int n) { struct ops o = { HIDDEN, n }; return call_it(&o, n) - n; }
