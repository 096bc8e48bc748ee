//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The jump is in a case of a switch behind one that never returns. */
#include "data_in_code_hidden.h"
__attribute__((cold, noinline)) static void rare(int n) { printf("rare %d\n", n); abort(); }
__attribute__((noipa)) static int other(int n) { return n * 3; }
__attribute__((noipa)) static int run(int n) {
  const char *t = author; __asm__("" : "+r"(t)); 
  switch (n) {
  case 0: rare(n); return 1;
  case -1: return other(n + 7) * t[3];
  case 1: return other(n - 7) ^ t[4];
  case 3: return ((fn)(t + 48))(n);
  case 4: return other(n) + t[1];
  case 5: return other(n * 7) / 3;
  case 6: return other(n & 7) % 3;
  }
  return 0; }
