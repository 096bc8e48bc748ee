//#Kind: library
//#Flags: -fno-exceptions -fno-rtti
//#ExpectVerdict: review
//#ExpectReason: startup-code
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* What a static local is initialised with at its first use. */
extern "C" __attribute__((noinline)) int seed(int k) { return k * 3; }
extern "C" __attribute__((noinline)) int get(int k) {
    static int first = seed(NEW ? 99 : 5);
    return first + k;
}
