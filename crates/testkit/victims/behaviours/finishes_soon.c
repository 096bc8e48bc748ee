//#ExpectVerdict: safe
//#Exchange: 5 | 5 rounds + | 6 rounds +
/* A thread is inside the changed function most of the time, for 20 ms at a time. */
#include "answers.h"
#include <pthread.h>
#include <time.h>

static volatile unsigned long rounds;

ALONE static int slow(int number, int wait) {
    struct timespec pause = {.tv_nsec = 20000000};
    if (wait)
        nanosleep(&pause, NULL);
#if NEW
    return number + 1;
#else
    return number;
#endif
}

static void *work(void *unused) {
    struct timespec pause = {.tv_nsec = 10000000};
    for (;;) {
        rounds += slow(1, 1) > 0;
        nanosleep(&pause, NULL);
    }
    return unused;
}

static void answer(const char *asked) {
    unsigned long before = rounds;
    struct timespec pause = {.tv_nsec = 100000000};
    nanosleep(&pause, NULL);
    printf("%d rounds %s\n", slow(atoi(asked), 0), rounds > before ? "+" : "none");
}

int main(void) {
    pthread_t thread;
    return pthread_create(&thread, NULL, work, NULL) ? 1 : serve();
}
