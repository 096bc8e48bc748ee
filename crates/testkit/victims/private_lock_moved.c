//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: call-moved
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* Who takes a private lock changes: what old code left unlocked, new code unlocks. */
static volatile int held;
static long value;

__attribute__((noinline)) void take(void) {
    while (__sync_lock_test_and_set(&held, 1))
        ;
}
__attribute__((noinline)) void give(void) { __sync_lock_release(&held); }
__attribute__((noinline)) void begin(long k) {
#if !NEW
    take();
#endif
    value += k;
}
__attribute__((noinline)) long finish(long k) {
#if NEW
    take();
#endif
    long result = value * k;
    value = 0;
    give();
    return result;
}
