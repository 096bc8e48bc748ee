//#ExpectVerdict: review
//#ExpectReason: constant-renumbered
//#ExpectReason: field-encoding
//#ExpectReason: field-meaning
//#ExpectReason: shared-state
//#ExpectChanged: answer
//#ExpectChanged: ask
/* A contract between two functions in different processes: `ask` in one waits for
 * `answer` in another, over memory that both share, and both have to be of the same
 * version. Whoever changes one process without the other is caught at once.
 *
 * argv[1]: "forked" (a child), or "executed" (this very file again; what they share is
 * then the only tie). argv[2]: a file whose first byte is 'w' while `answer` has to wait. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

struct shared {
    _Atomic long asked, answered, version;
};

static void rest(long microseconds) {
    struct timespec pause = {0, microseconds * 1000};
    nanosleep(&pause, NULL);
}

__attribute__((noipa)) long ask(struct shared *shared, long turn) {
    atomic_store(&shared->asked, turn);
    while (atomic_load(&shared->answered) != turn)
        rest(50);
    long theirs = atomic_load(&shared->version), ours = NEW ? 200 : 100;
    return theirs == ours ? ours : -theirs;
}

__attribute__((noipa)) void answer(struct shared *shared, int fd) {
    char state = 'w';
    while (pread(fd, &state, 1, 0) == 1 && state == 'w')
        rest(1000);
    atomic_store(&shared->version, NEW ? 200 : 100);
    atomic_store(&shared->answered, atomic_load(&shared->asked));
}

__attribute__((noreturn)) static void serve(struct shared *shared, int fd) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        if (atomic_load(&shared->asked) != atomic_load(&shared->answered))
            answer(shared, fd);
        rest(50);
    }
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    int serves = !strcmp(argv[1], "serve");
    int memory = serves ? atoi(argv[3]) : memfd_create("contract", 0);
    int fd = open(argv[2], O_RDONLY);
    if (memory < 0 || fd < 0 || (!serves && ftruncate(memory, 4096)))
        return 2;
    struct shared *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (shared == MAP_FAILED)
        return 2;
    if (serves)
        serve(shared, fd);
    pid_t child = fork();
    if (child == 0) {
        if (!strcmp(argv[1], "forked"))
            serve(shared, fd);
        char number[16];
        snprintf(number, sizeof number, "%d", memory);
        execl("/proc/self/exe", argv[0], "serve", argv[2], number, (char *)NULL);
        return 2;
    }
    printf("child %d\n", child);
    for (long turn = 1, last = 0;; turn++) {
        long got = ask(shared, turn);
        if (got != last)
            printf(got > 0 ? "got %ld\n" : "mixed %ld\n", got);
        fflush(stdout);
        last = got;
        rest(1000);
    }
}
