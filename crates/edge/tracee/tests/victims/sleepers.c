// Threads that sleep in every call that an interruption could end, and count what
// they see of it. A line on standard input asks for the counts; every sleeper has
// a name and says how often it was told of an interruption that no signal caused, and how
// often it was woken before its time or, where it has none, for nothing, or told nonsense.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef NEW
#define VALUE 2
#else
#define VALUE 1
#endif
__attribute__((noipa, aligned(16))) int answer(void) { return VALUE; }

struct sleeper {
    const char *name;
    int (*sleep)(struct sleeper *);
    int fd[2];
    volatile int interrupted, early;
};
#define FOR_EVER 1

static int in_epoll(struct sleeper *s) {
    struct epoll_event event;
    if (!s->fd[0]) s->fd[0] = epoll_create1(0);
    return epoll_wait(s->fd[0], &event, 1, 400);
}
static int in_poll(struct sleeper *s) {
    struct pollfd p = {.fd = s->fd[0], .events = POLLIN};
    return poll(&p, 1, 400);
}
static int in_select(struct sleeper *s) {
    fd_set set;
    struct timeval t = {0, 400000};
    FD_ZERO(&set);
    FD_SET(s->fd[0], &set);
    return select(s->fd[0] + 1, &set, NULL, NULL, &t);
}
static int in_nanosleep(struct sleeper *s) {
    (void)s;
    return nanosleep(&(struct timespec){0, 400000000}, NULL);
}
static int in_futex(struct sleeper *s) {
    static int word;
    (void)s;
    return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &(struct timespec){0, 400000000}, NULL, 0) && errno != ETIMEDOUT ? -1 : 0;
}
static int in_sigtimedwait(struct sleeper *s) {
    sigset_t set;
    (void)s;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    return sigtimedwait(&set, NULL, &(struct timespec){0, 400000000}) < 0 && errno != EAGAIN ? -1 : 0;
}
static int in_semtimedop(struct sleeper *s) {
    struct sembuf op = {0, -1, 0};
    if (!s->fd[0]) s->fd[0] = semget(IPC_PRIVATE, 1, 0600) + 1;
    return semtimedop(s->fd[0] - 1, &op, 1, &(struct timespec){0, 400000000}) && errno != EAGAIN ? -1 : 0;
}
static int in_receive(struct sleeper *s) {
    char byte;
    if (!s->fd[0]) {
        struct timeval t = {0, 400000};
        socketpair(AF_UNIX, SOCK_DGRAM, 0, s->fd);
        setsockopt(s->fd[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    }
    return recv(s->fd[0], &byte, 1, 0) < 0 && errno != EAGAIN ? -1 : 0;
}
static int in_read(struct sleeper *s) {
    char byte;
    if (!s->fd[0]) pipe(s->fd);
    return read(s->fd[0], &byte, 1) < 0 ? -1 : FOR_EVER;
}

static int in_clock_nanosleep(struct sleeper *s) {
    struct timespec until;
    (void)s;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 400000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    return errno ? -1 : 0;
}
static int in_futex_for_ever(struct sleeper *s) {
    static int word;
    (void)s;
    return syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0) ? -1 : FOR_EVER;
}
static int in_accept(struct sleeper *s) {
    if (!s->fd[0]) {
        s->fd[0] = socket(AF_INET, SOCK_STREAM, 0);
        listen(s->fd[0], 1);
    }
    return accept(s->fd[0], NULL, NULL) < 0 ? -1 : FOR_EVER;
}
static int in_wait(struct sleeper *s) {
    int status;
    if (!s->fd[0] && !(s->fd[0] = fork())) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("sleep", "sleep", "1000000", (char *)NULL);
        _exit(1);
    }
    // Neither its end nor a stop that somebody else caused.
    return waitpid(s->fd[0], &status, WUNTRACED | WCONTINUED) < 0 ? -1 : FOR_EVER;
}
static int timed(int result) { return result < 0 && errno != EAGAIN ? -1 : 0; }
// A socket from which nothing comes and into which nothing goes, both for 400 ms.
static int idle(struct sleeper *s, int kind) {
    if (!s->fd[0]) {
        struct timeval t = {0, 400000};
        socketpair(AF_UNIX, kind, 0, s->fd);
        while (send(s->fd[0], "fill", 4, MSG_DONTWAIT) > 0);
        setsockopt(s->fd[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
        setsockopt(s->fd[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    }
    return s->fd[0];
}
static char byte[] = "x";
static const struct iovec vector = {byte, 1};
static int in_socket_read(struct sleeper *s) { return timed(read(idle(s, SOCK_STREAM), byte, 1)); }
static int in_socket_readv(struct sleeper *s) { return timed(readv(idle(s, SOCK_STREAM), &vector, 1)); }
static int in_socket_preadv2(struct sleeper *s) { return timed(preadv2(idle(s, SOCK_STREAM), &vector, 1, -1, 0)); }
static int in_socket_write(struct sleeper *s) { return timed(write(idle(s, SOCK_STREAM), byte, 1)); }
static int in_socket_writev(struct sleeper *s) { return timed(writev(idle(s, SOCK_STREAM), &vector, 1)); }
static int in_socket_pwritev2(struct sleeper *s) { return timed(pwritev2(idle(s, SOCK_STREAM), &vector, 1, -1, 0)); }
static int in_sendmmsg(struct sleeper *s) {
    struct iovec one = vector;
    struct mmsghdr message = {.msg_hdr = {.msg_iov = &one, .msg_iovlen = 1}};
    return timed(sendmmsg(idle(s, SOCK_DGRAM), &message, 1, 0));
}
static int in_sendfile(struct sleeper *s) {
    static int file;
    off_t from = 0;
    if (!file && ftruncate(file = memfd_create("sent", 0), 4096)) return 0;
    return timed(sendfile(idle(s, SOCK_STREAM), file, &from, 1));
}
static int in_splice(struct sleeper *s) {
    static int into[2];
    if (!into[0] && pipe(into)) return 0;
    return timed(splice(idle(s, SOCK_STREAM), NULL, into[1], NULL, 1, 0));
}
// Nobody accepts, and there is room for one.
static int in_connect(struct sleeper *s) {
    static struct sockaddr_un at = {.sun_family = AF_UNIX};
    static socklen_t length = sizeof at;
    if (!s->fd[0]) {
        s->fd[0] = socket(AF_UNIX, SOCK_STREAM, 0);
        bind(s->fd[0], (struct sockaddr *)&at, sizeof(sa_family_t));
        getsockname(s->fd[0], (struct sockaddr *)&at, &length);
        listen(s->fd[0], 0);
        connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&at, length);
        s->fd[1] = socket(AF_UNIX, SOCK_STREAM, 0);
        setsockopt(s->fd[1], SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){0, 400000}, sizeof(struct timeval));
    }
    return timed(connect(s->fd[1], (struct sockaddr *)&at, length));
}
static int in_io_uring(struct sleeper *s) {
    struct __kernel_timespec t = {0, 400000000};
    struct io_uring_getevents_arg arg = {.ts = (unsigned long)&t};
    struct io_uring_params params = {0};
    if (!s->fd[0]) s->fd[0] = syscall(SYS_io_uring_setup, 2, &params);
    // Some kernels are told to have none.
    if (s->fd[0] < 0) return in_nanosleep(s);
    int flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    return syscall(SYS_io_uring_enter, s->fd[0], 0, 1, flags, &arg, sizeof arg) < 0 && errno != ETIME ? -1 : 0;
}
// Timeouts where nobody can write down what is left of them.
static const struct timespec fixed = {0, 400000000};
static const struct timeval fixed_long = {0, 400000};
static int in_fixed_pselect(struct sleeper *s) {
    (void)s;
    return syscall(SYS_pselect6, 0, NULL, NULL, NULL, &fixed, NULL);
}
static int in_fixed_select(struct sleeper *s) {
    (void)s;
    return syscall(SYS_select, 0, NULL, NULL, NULL, &fixed_long);
}
static int in_fixed_ppoll(struct sleeper *s) {
    (void)s;
    return syscall(SYS_ppoll, NULL, 0, &fixed, NULL, 8);
}
static int in_inotify(struct sleeper *s) {
    char event[512];
    if (!s->fd[0]) s->fd[0] = inotify_init();
    return read(s->fd[0], event, sizeof event) < 0 ? -1 : FOR_EVER;
}

static struct sleeper sleepers[] = {
    {"epoll_wait", in_epoll, {0}, 0, 0},     {"poll", in_poll, {0}, 0, 0},
    {"select", in_select, {0}, 0, 0},        {"nanosleep", in_nanosleep, {0}, 0, 0},
    {"futex", in_futex, {0}, 0, 0},          {"sigtimedwait", in_sigtimedwait, {0}, 0, 0},
    {"semtimedop", in_semtimedop, {0}, 0, 0}, {"recv", in_receive, {0}, 0, 0},
    {"read", in_read, {0}, 0, 0},            {"clock_nanosleep", in_clock_nanosleep, {0}, 0, 0},
    {"futex_for_ever", in_futex_for_ever, {0}, 0, 0}, {"accept", in_accept, {0}, 0, 0},
    {"wait", in_wait, {0}, 0, 0},
    {"socket_read", in_socket_read, {0}, 0, 0},
    {"socket_readv", in_socket_readv, {0}, 0, 0},
    {"socket_preadv2", in_socket_preadv2, {0}, 0, 0},
    {"socket_write", in_socket_write, {0}, 0, 0},
    {"socket_writev", in_socket_writev, {0}, 0, 0},
    {"socket_pwritev2", in_socket_pwritev2, {0}, 0, 0},
    {"sendmmsg", in_sendmmsg, {0}, 0, 0},
    {"sendfile", in_sendfile, {0}, 0, 0},
    {"splice", in_splice, {0}, 0, 0},
    {"connect", in_connect, {0}, 0, 0},
    {"io_uring", in_io_uring, {0}, 0, 0},
    {"fixed_pselect", in_fixed_pselect, {0}, 0, 0},
    {"fixed_select", in_fixed_select, {0}, 0, 0},
    {"fixed_ppoll", in_fixed_ppoll, {0}, 0, 0},
    {"inotify", in_inotify, {0}, 0, 0},
};
enum { COUNT = sizeof sleepers / sizeof *sleepers };

static void *run(void *argument) {
    struct sleeper *s = argument;
    pthread_setname_np(pthread_self(), s->name);
    for (;;) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        errno = 0;
        int result = s->sleep(s);
        clock_gettime(CLOCK_MONOTONIC, &to);
        long passed = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
        if (result < 0 && errno == EINTR) s->interrupted++;
        else if (result != 0 || passed < 398) s->early++;
    }
    return NULL;
}

int main(int argc, char **argv) {
    char line[64];
    int pipes[2];
    sigset_t set;
    setvbuf(stdout, NULL, _IONBF, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (pipe(pipes)) return 3;
    for (int i = 0; i < COUNT; i++) {
        pthread_t t;
        // One kind only, if named: then a single other thread sleeps.
        if (argc > 1 && strcmp(argv[1], sleepers[i].name)) continue;
        if (!strcmp(sleepers[i].name, "poll") || !strcmp(sleepers[i].name, "select")) sleepers[i].fd[0] = pipes[0];
        if (pthread_create(&t, NULL, run, &sleepers[i])) return 3;
    }
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        printf("%d", answer());
        for (int i = 0; i < COUNT; i++)
            if (sleepers[i].interrupted || sleepers[i].early)
                printf(" %s=%d,%d", sleepers[i].name, sleepers[i].interrupted, sleepers[i].early);
        putchar('\n');
    }
    return 0;
}
