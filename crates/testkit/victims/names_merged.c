//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: not-validated
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: clang -O2
/* Two names become one function. */
__attribute__((noinline)) int alpha(int *p, int k) {
    if (NEW && !p) return -1;
    return p[k] * 3;
}
#if NEW
int beta(int *p, int k) __attribute__((alias("alpha")));
#else
__attribute__((noinline)) int beta(int *p, int k) { return p[k] * 3 + p[k + 1]; }
#endif
__attribute__((noinline)) int gamma_(int *p) { return p[3]; }
