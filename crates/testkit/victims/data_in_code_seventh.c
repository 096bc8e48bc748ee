//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The address is the seventh argument. */
#include "data_in_code_hidden.h"
__attribute__((noinline, noclone)) static int seven(int a, int b, int c, int d, int e, int f, fn g) { 
  printf("%d%d%d%d%d%d\n", a,b,c,d,e,f); return g(a); }
__attribute__((noipa)) static int run(int n) { return seven(n, n+1, n+2, n+3, n+4, n+5, HIDDEN); }
