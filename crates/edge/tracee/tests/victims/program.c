// A program that answers on its standard output what its functions return, once
// for every line on its standard input, while any number of threads call them.
// Compiled twice: with -DNEW it is the version that a livepatch leads to.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noipa, aligned(16)))

volatile int counter;
volatile int wrong;
volatile long rounds;

#ifdef LIBRARY
int from_library(void);
#else
static int from_library(void) { return 0; }
#endif

#ifdef NEW
#define PICK(old, new) new
#else
#define PICK(old, new) old
#endif

KEEP int answer(void) { return PICK(1, 2); }
KEEP int second(void) { return PICK(10, 20); }
// Refers to writable data: the new one has to find the old one's.
KEEP int counted(void) {
    counter = counter + PICK(1, 100);
    return counter;
}

// Sleeps while its own frame is on the stack.
KEEP void slow(void (*sleeper)(void)) {
    sleeper();
    counter = counter + PICK(0, 1000);
    sleeper();
}

static void nap(void) {
    struct timespec t = {1, 500 * 1000 * 1000};
    while (nanosleep(&t, &t)) {
        wrong = 2;
    }
}

static void *sleeper(void *unused) {
    (void)unused;
    pthread_setname_np(pthread_self(), "sleeper");
    slow(nap);
    return NULL;
}

static int calm;

// Four threads never rest, or none; the others do, as a server's do.
static void *worker(void *index) {
    int last = 1;
    for (long round = 1;; round++) {
        if ((calm || (long)index >= 4) && round % 500 == 0) {
            usleep(1000);
        }
        int now = answer(), then = second();
        // Only the two values, and once new never old again within this thread: a
        // revert makes it old again, so only values are checked.
        if ((now != 1 && now != 2) || (then != 10 && then != 20)) {
            wrong = 1;
        }
        double d = (double)now * 3.5;
        if (d != 3.5 && d != 7.0) {
            wrong = 3;
        }
        last = now;
        rounds = rounds + 1;
    }
    return (void *)(long)last;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 0;
    char line[64];
    calm = argc > 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    for (int i = 0; i < threads; i++) {
        pthread_t t;
        if (pthread_create(&t, NULL, worker, (void *)(long)i)) {
            return 3;
        }
    }
    puts("ready");
    for (;;) {
        if (!fgets(line, sizeof line, stdin)) {
            return 0;
        }
        if (!strcmp(line, "sleep\n")) {
            pthread_t t;
            if (pthread_create(&t, NULL, sleeper, NULL)) {
                return 3;
            }
            puts("sleeping");
        } else if (!strcmp(line, "count\n")) {
            printf("%d\n", counted());
        } else {
            printf("%d %d %d wrong %d\n", answer(), second(), from_library(), wrong);
        }
    }
}
