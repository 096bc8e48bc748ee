// Threads that wait without end in epoll_wait while signals come that are ignored: none is
// ended by one unless somebody traces. The first thread is one of them.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#ifdef NEW
#define VALUE 2
#else
#define VALUE 1
#endif
__attribute__((noipa, aligned(16))) int answer(void) { return VALUE; }
__attribute__((noipa, aligned(16))) int second(void) { return VALUE * 10; }

static volatile int interrupted;

static void *waits(void *nothing) {
    struct epoll_event event;
    int epoll = epoll_create1(0);
    for (;;)
        if (epoll_wait(epoll, &event, 1, -1) < 0 && errno == EINTR) interrupted++;
    return nothing;
}

static void *signals(void *nothing) {
    // The thread that makes another blocks its signals meanwhile, which are not ignored then.
    usleep(100000);
    for (;;) {
        kill(getpid(), SIGWINCH);
        usleep(100);
    }
    return nothing;
}

static void *answers(void *nothing) {
    char line[64];
    while (fgets(line, sizeof line, stdin)) printf("%d interrupted %d\n", answer() + second(), interrupted);
    _exit(0);
    return nothing;
}

int main(void) {
    pthread_t t;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (pthread_create(&t, NULL, waits, NULL) || pthread_create(&t, NULL, signals, NULL)) return 3;
    if (pthread_create(&t, NULL, answers, NULL)) return 3;
    puts("ready");
    waits(NULL);
}
