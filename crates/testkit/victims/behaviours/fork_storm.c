//#ExpectVerdict: safe
//#Exchange: 5 | 5 | 6
/* A master and four of its children fork off short-lived grandchildren all the while: `storm` lets them begin,
 * `old` says how many processes answered as the old code does since it was asked. */
#include "answers.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct shared {
    volatile unsigned long old, answered;
    volatile int end;
};
static struct shared *shared;

ALONE static int changed(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

static void note(void) {
    __atomic_add_fetch(changed(1) == 1 ? &shared->old : &shared->answered, 1, __ATOMIC_SEQ_CST);
}

/* Forks off children that live for a while, and lives on. */
static void live(pid_t master) {
    struct timespec pause = {.tv_nsec = 4000000}, life = {.tv_nsec = 60000000};
    /* It does not outlive its master, however that ends; nor a test that hangs. */
    alarm(300);
    while (!shared->end && getppid() == master) {
        pid_t child = fork();
        if (child == 0) {
            for (int turn = 0; turn < 5; turn++) {
                nanosleep(&life, NULL);
                note();
            }
            _exit(0);
        }
        note();
        nanosleep(&pause, NULL);
    }
    _exit(0);
}

static void answer(const char *asked) {
    struct timespec pause = {.tv_nsec = 200000000};
    if (!strcmp(asked, "storm")) {
        pid_t master = getpid();
        for (int lines = 0; lines < 4; lines++)
            if (fork() == 0)
                live(master);
        puts("storming");
    } else if (!strcmp(asked, "old")) {
        shared->old = shared->answered = 0;
        nanosleep(&pause, NULL);
        printf("%lu old, %s new\n", shared->old, shared->answered ? "some" : "none");
    } else if (!strcmp(asked, "end")) {
        shared->end = 1;
        nanosleep(&pause, NULL);
        nanosleep(&pause, NULL);
        puts("ended");
    } else {
        printf("%d\n", changed(atoi(asked)));
    }
}

int main(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    signal(SIGCHLD, SIG_IGN);
    return shared == MAP_FAILED ? 1 : serve();
}
