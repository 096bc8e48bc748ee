//#ExpectVerdict: safe
//#Exchange: 5 | 5, 0 lost | 6, 0 lost
/* Two threads on one processor count in restartable sequences (rseq(2)): whoever is stopped in one
 * has to begin it anew, or what the other counted meanwhile is lost. */
#define _GNU_SOURCE
#include "../sequence.h"
#include "answers.h"
#include <stdatomic.h>
#include <unistd.h>

static volatile uint64_t counter;
static _Atomic uint64_t counted[2];
static _Atomic int paused, pausing;

ALONE static int changed(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

ALONE static void count(void) {
    count_in_a_sequence(&counter);
}

static void *work(void *own) {
    for (;;) {
        while (paused) {
            if (own)
                pausing |= own == &counted[0] ? 1 : 2;
            sched_yield();
        }
        count();
        ++*(_Atomic uint64_t *)own;
    }
    return NULL;
}

static void answer(const char *asked) {
    usleep(20000);
    pausing = 0;
    paused = 1;
    while (pausing != 3)
        sched_yield();
    printf("%d, %ld lost\n", changed(atoi(asked)), (long)(counted[0] + counted[1] - counter));
    paused = 0;
}

int main(void) {
    pthread_attr_t there;
    if (on_one_processor(&there))
        return 1;
    for (int index = 0; index < 2; index++) {
        pthread_t thread;
        if (pthread_create(&thread, &there, work, &counted[index]))
            return 1;
    }
    return serve();
}
