// A thread asleep below `inside`, on a stack that lies in three mappings of one file: where it
// sleeps, the only trace of `inside`, and the stack's beginning. The first argument says what is
// mapped, the second what kind of thread it is.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifdef NEW
#define VALUE 2
#else
#define VALUE 1
#endif

enum { PAGE = 4096, BYTES = 16 * PAGE, ABOVE = 9000, BELOW = 20000 };
#define RAW (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

static volatile int asleep, done;

__attribute__((noipa, aligned(16))) int inside(int (*what)(void)) { return what() * 2 + VALUE; }

static int one(void) { return 1; }

__attribute__((noipa)) static int below(void) {
    volatile char distance[BELOW];
    distance[0] = 1;
    asleep = 1;
    while (!done) nanosleep(&(struct timespec){0, 1000000}, NULL);
    return distance[0];
}

static int raw(void *nothing) {
    volatile char distance[ABOVE];
    (void)nothing;
    distance[0] = 0;
    inside(below);
    for (;;) pause();
    return distance[0];
}

static void *thread(void *nothing) {
    raw(nothing);
    return NULL;
}

static char *stack_of(const char *how) {
    if (!strcmp(how, "shared")) return mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int file = memfd_create("stack", 0);
    if (file < 0 || ftruncate(file, BYTES)) return MAP_FAILED;
    return mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
}

int main(int argc, char **argv) {
    char line[64], *stack = argc > 2 ? stack_of(argv[1]) : MAP_FAILED;
    setvbuf(stdout, NULL, _IONBF, 0);
    // Advised about, the middle is a mapping of its own.
    if (stack == MAP_FAILED || madvise(stack + BYTES - 6 * PAGE, 4 * PAGE, MADV_DONTDUMP)) return 3;
    if (!strcmp(argv[2], "raw")) {
        if (clone(raw, stack + BYTES - 64, RAW, NULL) < 0) return 3;
    } else {
        pthread_attr_t attributes;
        pthread_t t;
        pthread_attr_init(&attributes);
        pthread_attr_setstack(&attributes, stack, BYTES);
        if (pthread_create(&t, &attributes, thread, NULL)) return 3;
    }
    while (!asleep) usleep(1000);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        done |= !strcmp(line, "done\n");
        printf("%d\n", inside(one));
    }
    return 0;
}
