//#ExpectVerdict: safe
//#ExpectChanged: answer
//#Flags: -Wl,-z,now -fcf-protection
/* One thread that never sleeps measures the longest time that it did not run,
 * others sleep. What it sees lies in a file that is shared with the observer:
 *
 *   argv[1]  the file: u64 longest gap in ns, u64 reset request, u64 answer
 *   argv[2]  how many threads in all
 *   argv[3]  how many frames deep each of them is, if given
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct shared {
    _Atomic uint64_t gap_ns, reset, answer;
};

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Something to calculate, so that the function is more than its result. No
 * interprocedural analysis: it would compile what it learns here into main. */
__attribute__((noipa)) uint64_t answer(uint64_t seed) {
    uint64_t value = seed;
    for (int i = 0; i < 8; i++)
        value = value * 6364136223846793005u + (NEW ? 1442695040888963407u : 1);
    return (value & 0xff) | (NEW ? 0x200 : 0x100);
}

static int depth, threads;

/* Frames of 48 bytes and more, as many as asked for. */
__attribute__((noipa)) static void deep(void (*then)(void *), void *argument, volatile int left) {
    if (left > 0)
        deep(then, argument, left - 1);
    else
        then(argument);
    __asm__ volatile("" : : "r"(&left) : "memory");
}

static void sleep_on(void *unused) {
    (void)unused;
    /* All together wake some thousand times a second, however many there are. */
    long ms = threads < 10 ? 2 : threads / 5;
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    for (;;)
        nanosleep(&pause, NULL);
}

static void *sleeper(void *unused) {
    /* Only the one that measures goes ahead of others. */
    setpriority(PRIO_PROCESS, 0, 0);
    deep(sleep_on, unused, depth);
    return unused;
}

static void spin(void *argument);

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4)
        return 2;
    threads = atoi(argv[2]);
    depth = argc == 4 ? atoi(argv[3]) : 0;
    int fd = open(argv[1], O_RDWR);
    struct shared *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || shared == MAP_FAILED)
        return 2;
    for (int i = 1; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, sleeper, NULL) != 0)
            return 2;
    }
    puts("ready");
    fflush(stdout);
    deep(spin, shared, depth);
}

static void spin(void *argument) {
    struct shared *shared = argument;
    uint64_t last = now_ns(), seen_reset = 0;
    for (uint64_t turn = 0;; turn++) {
        uint64_t now = now_ns();
        if (now - last > shared->gap_ns)
            shared->gap_ns = now - last;
        if (shared->reset != seen_reset) {
            seen_reset = shared->reset;
            shared->gap_ns = 0;
        }
        if (turn % 4096 == 0)
            shared->answer = answer(turn);
        last = now;
    }
}
