//#ExpectVerdict: safe
//#ExpectChanged: first
//#ExpectChanged: second
//#ExpectChanged: third
//#Flags: -Wl,-z,now -fcf-protection -O2
/* A program that notices whatever is done to it. Its three functions change
 * together; it counts, in a file that is shared with the observer:
 *
 *   argv[1]  the file, words of 64 bits, as in `enum word` below
 *   argv[2]  "one": everything in one thread; "many": workers, sleepers in
 *            every kind of blocking call, threads that come and go
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum word { WRONG, MIXED, FLOAT, SENT, HANDLED, INTERRUPTED, INTERRUPTED_ALWAYS, BROKEN, NOW, THREADS, STARTS, BEATS = 16 };
static _Atomic uint64_t *shared;

#define KEEP __attribute__((noipa))

KEEP uint64_t first(uint64_t seed) {
    uint64_t value = seed;
    for (int i = 0; i < 4; i++)
        value = value * 6364136223846793005u + (NEW ? 1442695040888963407u : 1);
    return value;
}
KEEP uint64_t second(uint64_t seed) {
    uint64_t value = seed ^ 0x55;
    for (int i = 0; i < 3; i++)
        value = value * 2862933555777941757u + (NEW ? 3037000493u : 7);
    return value;
}
KEEP uint64_t third(uint64_t seed) {
    uint64_t value = ~seed;
    for (int i = 0; i < 2; i++)
        value = value * 3935559000370003845u + (NEW ? 2691343689449507681u : 9);
    return value;
}

/* The same, of which both versions know both answers. */
KEEP uint64_t expected(uint64_t value, uint64_t factor, uint64_t addend, int rounds) {
    for (int i = 0; i < rounds; i++)
        value = value * factor + addend;
    return value;
}

/* 1 old, 2 new, 0 neither. */
KEEP int which(uint64_t value, uint64_t old, uint64_t new) {
    return value == old ? 1 : value == new ? 2 : 0;
}

KEEP double floats(double x, long double y) {
    for (int i = 0; i < 60; i++) {
        x = 3.9 * x * (1 - x);
        y = y * 1.0000001L + (long double)x;
    }
    return x + (double)y;
}

struct streak {
    uint64_t seed;
    int mixed;
};

static double right_floats;

static void round_of(struct streak *s) {
    uint64_t seed = s->seed++;
    int a = which(first(seed), expected(seed, 6364136223846793005u, 1, 4), expected(seed, 6364136223846793005u, 1442695040888963407u, 4));
    int b = which(second(seed), expected(seed ^ 0x55, 2862933555777941757u, 7, 3), expected(seed ^ 0x55, 2862933555777941757u, 3037000493u, 3));
    int c = which(third(seed), expected(~seed, 3935559000370003845u, 9, 2), expected(~seed, 3935559000370003845u, 2691343689449507681u, 2));
    if (!a || !b || !c)
        atomic_fetch_add(&shared[WRONG], 1);
    /* One round may be cut by a transition; a second one is a mixture that stays. */
    s->mixed = a == b && b == c ? 0 : s->mixed + 1;
    if (s->mixed > 1)
        atomic_fetch_add(&shared[MIXED], 1);
    if (a == b && b == c)
        shared[NOW] = (uint64_t)a;
    if (floats(0.4, 1.5L) != right_floats)
        atomic_fetch_add(&shared[FLOAT], 1);
}

static void count(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info, (void)context;
    int saved = errno;
    atomic_fetch_add(&shared[HANDLED], 1);
    errno = saved;
}

/* A queued signal is neither merged nor lost. */
static void send_to(pthread_t to) {
    if (pthread_sigqueue(to, SIGRTMIN, (union sigval){0}) == 0)
        atomic_fetch_add(&shared[SENT], 1);
}

static pid_t observer;

static void *worker(void *index) {
    struct streak s = {(uint64_t)(uintptr_t)index << 32, 0};
    for (;;) {
        if (getppid() != observer)
            _exit(0);
        for (int i = 0; i < 400; i++)
            round_of(&s);
        send_to(pthread_self());
        atomic_fetch_add(&shared[BEATS + (uintptr_t)index], 1);
        struct timespec pause = {0, 300000};
        while (nanosleep(&pause, &pause) && errno == EINTR)
            ;
    }
    return NULL;
}

struct sleeper {
    int (*sleep)(struct sleeper *);
    int fd[2];
    /* Whether the kernel ends it with EINTR for any stop, signal or none. */
    int always;
    int index;
};

enum { SLEEP_NS = 15000000, SLEEP_MS = 15 };
static const struct timespec nap = {0, SLEEP_NS};

static int in_epoll(struct sleeper *s) {
    struct epoll_event event;
    if (!s->fd[0]) s->fd[0] = epoll_create1(0);
    return epoll_wait(s->fd[0], &event, 1, SLEEP_MS);
}
static int in_poll(struct sleeper *s) {
    if (!s->fd[0] && pipe(s->fd)) return -1;
    struct pollfd p = {.fd = s->fd[0], .events = POLLIN};
    return poll(&p, 1, SLEEP_MS);
}
static int in_nanosleep(struct sleeper *s) {
    (void)s;
    return nanosleep(&nap, NULL);
}
static int in_clock_nanosleep(struct sleeper *s) {
    (void)s;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += SLEEP_NS;
    if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
    errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    return errno ? -1 : 0;
}
static int in_futex(struct sleeper *s) {
    static int word;
    (void)s;
    return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &nap, NULL, 0) && errno != ETIMEDOUT ? -1 : 0;
}
static int in_sigtimedwait(struct sleeper *s) {
    sigset_t set;
    (void)s;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    return sigtimedwait(&set, NULL, &nap) < 0 && errno != EAGAIN ? -1 : 0;
}
static int in_semtimedop(struct sleeper *s) {
    struct sembuf op = {0, -1, 0};
    /* One for all of them: nobody would remove it after a death. Its value stays 0. */
    if (!s->fd[0]) s->fd[0] = semget(0x5a17e, 1, IPC_CREAT | 0600) + 1;
    return semtimedop(s->fd[0] - 1, &op, 1, &nap) && errno != EAGAIN ? -1 : 0;
}
static int in_read(struct sleeper *s) {
    char byte;
    if (!s->fd[0] && pipe(s->fd)) return -1;
    return read(s->fd[0], &byte, 1) < 0 ? -1 : 0;
}
static int in_threads(struct sleeper *s);

static struct sleeper sleepers[] = {
    {in_epoll, {0}, 1, 0},     {in_poll, {0}, 0, 0},        {in_nanosleep, {0}, 0, 0}, {in_clock_nanosleep, {0}, 0, 0},
    {in_futex, {0}, 0, 0},     {in_sigtimedwait, {0}, 1, 0}, {in_semtimedop, {0}, 1, 0}, {in_threads, {0}, 0, 0},
    {in_read, {0}, 0, 0},
};
enum { WORKERS = 3, SLEEPERS = sizeof sleepers / sizeof *sleepers };

static void *short_life(void *s) {
    struct streak streak = {7, 0};
    round_of(&streak);
    return s;
}
static struct timespec began;

static int in_threads(struct sleeper *s) {
    pthread_t t;
    errno = pthread_create(&t, NULL, short_life, s);
    /* For a while after it executed itself the kernel now and then has no thread for it, with and without Salve. */
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (errno == EAGAIN && now.tv_sec - began.tv_sec < 5) return usleep(2000);
    if (errno || (errno = pthread_join(t, NULL))) return -1;
    return usleep(2000);
}

static void *sleeper(void *argument) {
    struct sleeper *s = argument;
    for (;;) {
        errno = 0;
        if (s->sleep(s) < 0)
            atomic_fetch_add(&shared[errno != EINTR ? BROKEN : s->always ? INTERRUPTED_ALWAYS : INTERRUPTED], 1);
        atomic_fetch_add(&shared[BEATS + s->index], 1);
    }
    return NULL;
}

static char **arguments;

/* On SIGUSR1 it begins anew, as the same process. */
static void begin_anew(int signal) {
    (void)signal;
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    execv("/proc/self/exe", arguments);
    _exit(3);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    clock_gettime(CLOCK_MONOTONIC, &began);
    arguments = argv;
    observer = getppid();
    int fd = open(argv[1], O_RDWR);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || shared == MAP_FAILED)
        return 2;
    close(fd);
    /* What was on its way ended with the threads that it was for. */
    shared[SENT] = shared[HANDLED] = 0;
    right_floats = floats(0.4, 1.5L);
    struct sigaction action = {.sa_sigaction = count, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN, &action, NULL);
    struct sigaction anew = {.sa_handler = begin_anew};
    sigaction(SIGUSR1, &anew, NULL);
    sigset_t all;
    sigfillset(&all);
    /* Inherited from the handler that executed it. */
    pthread_sigmask(SIG_UNBLOCK, &all, NULL);
    if (!strcmp(argv[2], "many")) {
        pthread_t t;
        pthread_sigmask(SIG_BLOCK, &all, NULL);
        for (int i = 0; i < SLEEPERS; i++) {
            sleepers[i].index = WORKERS + i;
            if (pthread_create(&t, NULL, sleeper, &sleepers[i])) return 2;
        }
        pthread_sigmask(SIG_UNBLOCK, &all, NULL);
        for (uintptr_t i = 1; i < WORKERS; i++)
            if (pthread_create(&t, NULL, worker, (void *)i)) return 2;
        /* The last sleeper never wakes. */
        shared[THREADS] = WORKERS + SLEEPERS - 1;
    } else {
        shared[THREADS] = 1;
    }
    atomic_fetch_add(&shared[STARTS], 1);
    puts("ready");
    fflush(stdout);
    worker((void *)0);
}
