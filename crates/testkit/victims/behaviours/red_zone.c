//#ExpectVerdict: safe
//#Flags: -O0
//#Exchange: 3 | 3 wrong 0 | 4 wrong 0
/* Threads that keep everything below their stack pointer are stopped and borrowed, and lose none of it. */
#include "answers.h"
#include <pthread.h>

static volatile unsigned long wrong;

ALONE static unsigned long leaf(unsigned long seed) {
    volatile unsigned long kept[12];
    unsigned long sum = 0;
    for (int i = 0; i < 12; i++)
        kept[i] = seed * (unsigned)(i + 1);
    for (int i = 0; i < 12; i++)
        sum += kept[i];
    return sum;
}

static void *work(void *unused) {
    for (unsigned long seed = 1;; seed++)
        if (leaf(seed) != seed * 78)
            wrong++;
    return unused;
}

ALONE static int changed(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

static void answer(const char *asked) {
    printf("%d wrong %lu\n", changed(atoi(asked)), wrong);
}

int main(void) {
    pthread_t thread;
    for (int i = 0; i < 3; i++)
        if (pthread_create(&thread, NULL, work, NULL))
            return 1;
    return serve();
}
