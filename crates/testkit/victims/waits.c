//#ExpectVerdict: safe
//#ExpectChanged: answer
//#ExpectChanged: reply
/* Waits over and over for something that never comes, and says how long each wait was:
 * argv[1] is how, argv[2] the timeout in milliseconds. The calls are those whose timeout
 * the kernel does not carry over a stop, and `poll`, whose it does. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <time.h>
#include <unistd.h>

__attribute__((noipa)) int answer(int seed) { return seed * 3 + (NEW ? 200 : 100); }
__attribute__((noipa)) int reply(int seed) { return seed * 5 + (NEW ? 400 : 300); }

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    int timeout = atoi(argv[2]), epoll = epoll_create1(0), semaphore = -1;
    struct timespec time = {timeout / 1000, timeout % 1000 * 1000000};
    struct sembuf down = {0, -1, 0};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR2);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    if (!strcmp(argv[1], "semtimedop") && (semaphore = semget(0x5a17e, 1, IPC_CREAT | 0600)) < 0)
        return 2;
    puts("ready");
    fflush(stdout);
    for (int turn = 0;; turn++) {
        double began = now_ms();
        struct epoll_event event;
        struct pollfd nothing = {.fd = -1};
        int got = !strcmp(argv[1], "epoll_wait")     ? epoll_wait(epoll, &event, 1, timeout)
                  : !strcmp(argv[1], "sigtimedwait") ? sigtimedwait(&signals, NULL, &time) + 1
                  : !strcmp(argv[1], "semtimedop")   ? semtimedop(semaphore, &down, 1, &time) + 1
                                                     : poll(&nothing, 1, timeout);
        printf("waited %.3f got %d answer %d\n", now_ms() - began, got, answer(0) + reply(0));
        fflush(stdout);
    }
}
