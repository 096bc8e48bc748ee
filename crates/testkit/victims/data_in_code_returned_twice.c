//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The address comes back through two calls. */
#include "data_in_code_hidden.h"
__attribute__((noinline, noclone)) static const char *inner(int n) { if (n > 100) puts("many"); return author; }
__attribute__((noinline, noclone)) static const char *outer(int n) { 
  const char *p = inner(n); __asm__ volatile("" ::: "memory"); return p; }
__attribute__((noipa)) static int run(int n) { return ((fn)(outer(n) + 48))(n); }
