// A program that counts on the numbers of its descriptors, all the time. The argument says how:
// `lowest`: the next file gets the lowest number that is free; `replaced`: it closes all that it
// does not know and puts files of its own under numbers of its own; `unshared`: a thread has a
// table of its own; `one-memory`: a process that is no thread has the same memory.
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEEP __attribute__((noipa, aligned(16)))
#ifdef NEW
#define VALUE 2
#else
#define VALUE 1
#endif
KEEP int answer(void) { return VALUE; }
KEEP int second(void) { return VALUE * 10; }
KEEP int counted(void) { return VALUE * 100; }

static volatile int wrong;

static void lowest(void) {
    int one = open("/dev/null", O_RDONLY), other = dup(one);
    if (one != 3 || other != 4) wrong = wrong + 1;
    close(one), close(other);
}

// Files of its own, told by the number of their inodes: each under the number of another.
static void replaced(void) {
    struct stat before, after;
    close_range(3, ~0U, 0);
    for (int number = 3; number < 40; number++) {
        int file = memfd_create("own", 0);
        if (file < 0 || fstat(file, &before)) wrong = wrong + 1;
        if (file != number) dup2(file, number), close(file);
        if (ftruncate(number, 8) || fstat(number, &after) || before.st_ino != after.st_ino) wrong = wrong + 1;
    }
    usleep(500);
    for (int number = 3; number < 40; number++) {
        if (fstat(number, &after) || after.st_size != 8) wrong = wrong + 1;
    }
}

// Its messages have the numbers that the first thread's next files will have.
static void *unshared(void *unused) {
    int pair[2];
    char byte;
    if (unshare(CLONE_FILES) || socketpair(AF_UNIX, SOCK_DGRAM, 0, pair)) wrong = wrong + 1;
    for (;;) {
        if (send(pair[0], "m", 1, 0) != 1) wrong = wrong + 1;
        for (volatile int i = 0; i < 20000; i = i + 1)
            ;
        if (recv(pair[1], &byte, 1, MSG_DONTWAIT) != 1) wrong = wrong + 1;
    }
    return unused;
}

static int one_memory(void *unused) {
    (void)unused;
    for (;;)
        pause();
}

int main(int argc, char **argv) {
    static char stack[65536];
    const char *how = argc > 1 ? argv[1] : "lowest";
    pthread_t thread;
    char line[64];
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!strcmp(how, "unshared"))
        for (int i = 0; i < 4; i++) pthread_create(&thread, NULL, unshared, NULL);
    if (!strcmp(how, "one-memory")) clone(one_memory, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
    puts("ready");
    for (;;) {
        struct pollfd in = {.fd = 0, .events = POLLIN};
        if (!strcmp(how, "lowest")) lowest();
        if (!strcmp(how, "replaced")) replaced();
        if (poll(&in, 1, strcmp(how, "unshared") && strcmp(how, "one-memory") ? 0 : 10) < 1) continue;
        if (!fgets(line, sizeof line, stdin)) return 0;
        printf("%d %d %d wrong %d\n", answer(), second(), counted(), wrong);
    }
}
