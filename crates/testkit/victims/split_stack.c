//#ExpectVerdict: safe
//#ExpectChanged: answer
/* Its stack becomes three mappings, and for a while the only trace of the changed function
 * lies in the middle one, far from where the thread stands and from where its stack ends. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096UL
#define ALONE __attribute__((noipa))

static void rest(long milliseconds) {
    struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&pause, &pause) && errno == EINTR)
        ;
}

/* What keeps the frames above and below it in other pages. */
#define DISTANCE                                                                                                      \
    volatile char distance[64 << 10];                                                                                  \
    distance[0] = 1;                                                                                                   \
    __asm__ volatile("" : : "r"(distance) : "memory")

ALONE static void below(void) {
    DISTANCE;
    puts("inside");
    fflush(stdout);
    rest(3000);
}

ALONE static void middle(void) {
    DISTANCE;
    /* The kernel keeps locked pages in a mapping of their own. */
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0) & ~(PAGE - 1);
    int failed = mlock((void *)(frame - PAGE), 3 * PAGE);
    printf("ready %d\n", failed);
    below();
}

ALONE long answer(long turn) {
    if (turn == 0)
        middle();
    return turn * 3 + (NEW ? 200 : 100);
}

ALONE static void above(void) {
    DISTANCE;
    answer(0);
}

int main(void) {
    above();
    for (long turn = 1, last = 0;; turn++) {
        long got = answer(turn) - turn * 3;
        if (got != last)
            printf("got %ld\n", got);
        fflush(stdout);
        last = got;
        rest(1);
    }
}
