// A program whose second thread (argv[1]: and more) is in a function that changes for all
// but a moment in ten thousand. It checks each result, and answers a line with what it saw.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define KEEP __attribute__((noipa, aligned(16)))

#ifdef NEW
#define ADDEND 7u
#else
#define ADDEND 5u
#endif

static atomic_long wrong, turns;

static unsigned step(unsigned number, unsigned addend) {
    for (int round = 0; round < 20000; round++)
        number = number * 1664525u + addend;
    return number;
}

KEEP unsigned changed(unsigned number) {
    for (int round = 0; round < 20000; round++)
        number = number * 1664525u + ADDEND;
    return number;
}

static void *work(void *unused) {
    (void)unused;
    for (unsigned number = 1;; number++) {
        unsigned got = changed(number);
        // Now and then: it would be too much time outside.
        if (number % 1024 == 0)
            wrong += got != step(number, 5) && got != step(number, 7);
        turns++;
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thread;
    for (int more = argc > 1 ? atoi(argv[1]) : 1; more > 0; more--)
        pthread_create(&thread, NULL, work, NULL);
    alarm(600);
    char line[64];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        long before = turns;
        while (turns < before + 2)
            usleep(100);
        printf("%u wrong %ld\n", changed(1) == step(1, 7) ? 2u : 1u, (long)wrong);
        fflush(stdout);
    }
}
