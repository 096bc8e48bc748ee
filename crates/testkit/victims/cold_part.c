//#Kind: library
//#ExpectVerdict: safe
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* The switch of a replaced function leads into a part of it that lies elsewhere and did not change. */
__attribute__((cold, noreturn)) void give_up(const char *why);

__attribute__((noinline)) int choose(int k, int *p) {
    switch (k) {
    case 0: return p[1] * 3;
    case 1: give_up("one");
    case 2: return p[2] - 1;
    case 3: give_up("three");
    case 4: return p[0] ^ 7;
    case 5: return p[4] + p[1];
    case 6: give_up("six");
    case 7: return NEW ? *p + 1 + p[1] : *p;
    case 8: return p[8] / 3;
    default: return p[3] * k;
    }
}
__attribute__((noinline)) int other(int *p) { return p[1] * 5 + choose(3, p); }
