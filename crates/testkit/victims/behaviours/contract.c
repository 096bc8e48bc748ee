//#ExpectVerdict: safe
//#Exchange: 5 | 25 wrong 0 | 35 wrong 0
/* Caller and callee agree anew on what they hand over: never a new one with an old one, in no thread. */
#include "answers.h"
#include <pthread.h>

static volatile unsigned long wrong;

ALONE static int unpack(int packed) {
#if NEW
    return (packed ^ 0x5a5a) * 7;
#else
    return packed * 5;
#endif
}

ALONE static int transfer(int number) {
    int sum = 0;
    for (volatile int turn = 0; turn < 20; turn++)
#if NEW
        sum = unpack(number ^ 0x5a5a);
#else
        sum = unpack(number);
#endif
    return sum;
}

static void *work(void *unused) {
    for (int number = 1;; number = number % 1000 + 1) {
        for (volatile int elsewhere = 0; elsewhere < 200; elsewhere++)
            ;
        int got = transfer(number);
        if (got != number * 5 && got != number * 7)
            wrong++;
    }
    return unused;
}

static void answer(const char *asked) {
    printf("%d wrong %lu\n", transfer(atoi(asked)), wrong);
}

int main(void) {
    pthread_t thread;
    for (int i = 0; i < 4; i++)
        if (pthread_create(&thread, NULL, work, NULL))
            return 1;
    return serve();
}
