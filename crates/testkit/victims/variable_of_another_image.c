//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: unproven-reference
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* The program may have a copy of the variable; new code looks at the library's own. */
#if NEW
__attribute__((visibility("protected")))
#endif
int counter;
static int hits;
__attribute__((noinline)) int count(int k) { counter += k; hits++; return counter; }
__attribute__((noinline)) int seen(void) { return hits; }
