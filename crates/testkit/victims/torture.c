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
 *            every kind of blocking call, threads that come and go; "group":
 *            three processes forked from one another, two with one thread and
 *            one with all the sleepers, which share the file's memory;
 *            "sequences": two threads on one processor that count in
 *            restartable sequences all the time
 */
#define _GNU_SOURCE
#include "sequence.h"
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
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum word { WRONG, MIXED, FLOAT, SENT, HANDLED, INTERRUPTED, INTERRUPTED_ALWAYS, BROKEN, NOW, THREADS, STARTS, NOW_OF_CHILDREN, FAILED = 14, FAILED_WITH, BEATS = 16 };
static _Atomic uint64_t *shared;
/* Where this process says by what it answers. */
static int own_now = NOW;

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
        shared[own_now] = (uint64_t)a;
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

/* Calls without a timeout, each of which `in_waking` ends in its turn. */
static int listening, woken_by_event;
static _Atomic int turn;
static pid_t someone;
static int in_accept(struct sleeper *s) {
    (void)s;
    /* It may execute itself anew in this very moment. */
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    return fd < 0 ? -1 : close(fd);
}
static int in_wait4(struct sleeper *s) {
    int status;
    (void)s;
    return wait4(someone, &status, WUNTRACED, NULL) != someone || !WIFSTOPPED(status) ? -1 : 0;
}
static int in_waitid(struct sleeper *s) {
    siginfo_t info;
    (void)s;
    return waitid(P_PID, (id_t)someone, &info, WCONTINUED) || info.si_code != CLD_CONTINUED ? -1 : 0;
}
static int in_futex_forever(struct sleeper *s) {
    (void)s;
    int now = turn;
    return syscall(SYS_futex, &turn, FUTEX_WAIT, now, NULL, NULL, 0) && errno != EAGAIN ? -1 : 0;
}
static int in_epoll_forever(struct sleeper *s) {
    struct epoll_event event = {.events = EPOLLIN};
    uint64_t many;
    if (!s->fd[0]) {
        s->fd[0] = epoll_create1(0);
        if (epoll_ctl(s->fd[0], EPOLL_CTL_ADD, woken_by_event, &event)) return -1;
    }
    return epoll_wait(s->fd[0], &event, 1, -1) < 0 ? -1 : read(woken_by_event, &many, sizeof many) < 0 ? -1 : 0;
}
static int in_waking(struct sleeper *s);

static struct sleeper sleepers[] = {
    {in_accept, {0}, 0, 0},    {in_wait4, {0}, 0, 0},       {in_waitid, {0}, 0, 0},    {in_futex_forever, {0}, 0, 0},
    {in_epoll_forever, {0}, 1, 0}, {in_waking, {0}, 0, 0},
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

/* Ends the first five one after the other, and waits until each is through: one that nothing
 * wakes any more would be seen as hung. */
static int in_waking(struct sleeper *s) {
    uint64_t once = 1;
    struct sockaddr_un name;
    (void)s;
    for (int i = 0; i < 5; i++) {
        uint64_t before = shared[BEATS + sleepers[i].index];
        int failed = 0;
        if (i == 0) {
            socklen_t length = sizeof name;
            int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
            failed = getsockname(listening, (struct sockaddr *)&name, &length) || connect(fd, (struct sockaddr *)&name, length) || close(fd);
        } else if (i == 1 || i == 2) {
            failed = kill(someone, i == 1 ? SIGSTOP : SIGCONT);
        } else if (i == 3) {
            turn++;
            syscall(SYS_futex, &turn, FUTEX_WAKE, 1, NULL, NULL, 0);
        } else {
            failed = write(woken_by_event, &once, sizeof once) < 0;
        }
        if (failed) return -1;
        /* What it is to be woken from it may not have begun yet. */
        while (shared[BEATS + sleepers[i].index] == before) {
            if (i == 3) {
                turn++;
                syscall(SYS_futex, &turn, FUTEX_WAKE, 1, NULL, NULL, 0);
            }
            usleep(100);
        }
    }
    return usleep(10000);
}

/* Somebody to wait for, who is another program. */
static int prepare_to_wait(void) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    listening = socket(AF_UNIX, SOCK_STREAM, 0);
    woken_by_event = eventfd(0, 0);
    if (bind(listening, (struct sockaddr *)&name, sizeof name.sun_family) || listen(listening, 4) || woken_by_event < 0) return -1;
    if ((someone = fork()) == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("sleep", "sleep", "infinity", (char *)NULL);
        _exit(2);
    }
    return someone < 0 ? -1 : 0;
}

static void *sleeper(void *argument) {
    struct sleeper *s = argument;
    for (;;) {
        errno = 0;
        if (s->sleep(s) < 0) {
            int with = errno;
            if (with != EINTR) {
                shared[FAILED] = (uint64_t)s->index;
                shared[FAILED_WITH] = (uint64_t)with;
            }
            atomic_fetch_add(&shared[with != EINTR ? BROKEN : s->always ? INTERRUPTED_ALWAYS : INTERRUPTED], 1);
        }
        atomic_fetch_add(&shared[BEATS + s->index], 1);
    }
    return NULL;
}

/* All sleepers; the last one never wakes. */
static int start_sleepers(void) {
    pthread_t t;
    sigset_t all;
    if (prepare_to_wait()) return -1;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (int i = 0; i < SLEEPERS; i++) {
        sleepers[i].index = WORKERS + i;
        if (pthread_create(&t, NULL, sleeper, &sleepers[i])) return -1;
    }
    return pthread_sigmask(SIG_UNBLOCK, &all, NULL);
}

/* Two threads count up a variable in restartable sequences, and look now and then whether any count was lost. */
enum { BATCH = 500, COUNTERS = 2 };
static volatile uint64_t counter;
static pthread_barrier_t together;

KEEP static void count_one(void) {
    count_in_a_sequence(&counter);
}

static void *counting(void *index) {
    for (uint64_t right = 0;;) {
        for (int i = 0; i < BATCH; i++)
            count_one();
        right += BATCH * COUNTERS;
        /* The last one to come looks, while nobody counts. */
        if (pthread_barrier_wait(&together) == PTHREAD_BARRIER_SERIAL_THREAD && counter != right) {
            atomic_fetch_add(&shared[WRONG], right - counter);
            counter = right;
        }
        pthread_barrier_wait(&together);
        atomic_fetch_add(&shared[BEATS + (uintptr_t)index], 1);
    }
    return NULL;
}

static int start_counting(void) {
    pthread_t t;
    pthread_attr_t there;
    if (on_one_processor(&there) || pthread_barrier_init(&together, NULL, COUNTERS)) return -1;
    for (uintptr_t i = 1; i <= COUNTERS; i++)
        if (pthread_create(&t, &there, counting, (void *)i)) return -1;
    return 0;
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
        if (start_sleepers()) return 2;
        for (uintptr_t i = 1; i < WORKERS; i++)
            if (pthread_create(&t, NULL, worker, (void *)i)) return 2;
        shared[THREADS] = WORKERS + SLEEPERS - 1;
    } else if (!strcmp(argv[2], "group")) {
        pid_t self = getpid();
        for (uintptr_t i = 1; i < WORKERS; i++) {
            pid_t child = fork();
            if (child < 0) return 2;
            if (child) continue;
            observer = self;
            own_now = NOW_OF_CHILDREN + (int)i - 1;
            if (i == WORKERS - 1 && start_sleepers()) _exit(2);
            worker((void *)i);
        }
        shared[THREADS] = WORKERS + SLEEPERS - 1;
    } else if (!strcmp(argv[2], "sequences")) {
        sigset_t signal;
        sigemptyset(&signal);
        sigaddset(&signal, SIGRTMIN);
        pthread_sigmask(SIG_BLOCK, &signal, NULL);
        if (start_counting()) return 2;
        pthread_sigmask(SIG_UNBLOCK, &signal, NULL);
        shared[THREADS] = 1 + COUNTERS;
    } else {
        shared[THREADS] = 1;
    }
    atomic_fetch_add(&shared[STARTS], 1);
    puts("ready");
    fflush(stdout);
    worker((void *)0);
}
