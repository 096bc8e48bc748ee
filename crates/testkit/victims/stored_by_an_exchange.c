//#ExpectVerdict: review
//#ExpectReason: shared-state
/* What an atomic variable holds has another unit, for the one that stores it and for the one
 * that loads it. */
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#ifdef __clang__
#define ALONE __attribute__((noinline))
#else
#define ALONE __attribute__((noipa))
#endif

static _Atomic long budget;

ALONE static void set(long number) {
    atomic_store(&budget, NEW ? number * 1000 : number);
}

ALONE static long get(void) {
    return NEW ? atomic_load(&budget) / 1000 : atomic_load(&budget);
}

int main(void) {
    for (long i = 0;; i++) {
        set(i);
        printf("%ld\n", get());
        sleep(1);
    }
}
