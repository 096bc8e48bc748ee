//#ExpectVerdict: safe
//#ExpectChanged: answer
//#Flags: -Wl,-z,now -fcf-protection
/* One thread that never sleeps measures the longest time that it did not run,
 * others sleep. What it sees lies in a file that is shared with the observer:
 *
 *   argv[1]  the file: u64 longest gap in ns, u64 reset request, u64 answer
 *   argv[2]  how many threads in all
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
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

static void *sleeper(void *unused) {
    struct timespec pause = {0, 2000000};
    for (;;)
        nanosleep(&pause, NULL);
    return unused;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    int fd = open(argv[1], O_RDWR);
    struct shared *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || shared == MAP_FAILED)
        return 2;
    for (int i = 1; i < atoi(argv[2]); i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, sleeper, NULL) != 0)
            return 2;
    }
    puts("ready");
    fflush(stdout);
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
