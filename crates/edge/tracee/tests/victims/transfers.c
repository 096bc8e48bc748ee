// Threads that move more than fits at once, and count how often they were told that less
// was moved than they asked for. A line on standard input asks for the counts. Between
// two of its transfers each waits for a moment.
//
// With an argument, one of them moves into something that nobody empties, or waits for what
// never comes whole.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifdef NEW
#define VALUE 2
#else
#define VALUE 1
#endif
__attribute__((noipa, aligned(16))) int answer(void) { return VALUE; }
__attribute__((noipa, aligned(16))) int other(void) { return 10 * VALUE; }

#define MUCH (256 << 10)
static char much[MUCH];

struct mover {
    const char *name;
    long asked;
    long (*move)(struct mover *);
    int fd[2];
    volatile int less, error;
};

static void milliseconds(long count) { nanosleep(&(struct timespec){count / 1000, count % 1000 * 1000000}, NULL); }
// Takes what comes, slowly.
static void *drain(void *argument) {
    static __thread char some[16 << 10];
    while (read((int)(intptr_t)argument, some, sizeof some) > 0) milliseconds(1);
    return NULL;
}
static void start(void *(*what)(void *), void *argument) {
    pthread_t t;
    if (pthread_create(&t, NULL, what, argument)) exit(3);
}
static int into_pipe(struct mover *m) {
    if (!m->fd[1]) {
        if (pipe(m->fd)) exit(3);
        start(drain, (void *)(intptr_t)m->fd[0]);
    }
    return m->fd[1];
}
static int into_socket(struct mover *m) {
    if (!m->fd[1]) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, m->fd)) exit(3);
        start(drain, (void *)(intptr_t)m->fd[0]);
    }
    return m->fd[1];
}
static long by_write(struct mover *m) { return write(into_pipe(m), much, MUCH); }
static long by_writev(struct mover *m) {
    struct iovec halves[2] = {{much, MUCH / 2}, {much, MUCH / 2}};
    return writev(into_pipe(m), halves, 2);
}
static long by_send(struct mover *m) { return send(into_socket(m), much, MUCH, 0); }
static long by_sendmsg(struct mover *m) {
    struct iovec halves[2] = {{much, MUCH / 2}, {much, MUCH / 2}};
    struct msghdr message = {.msg_iov = halves, .msg_iovlen = 2};
    return sendmsg(into_socket(m), &message, 0);
}
static long by_sendfile(struct mover *m) {
    static int file;
    off_t from = 0;
    if (!file && ftruncate(file = memfd_create("sent", 0), MUCH)) exit(3);
    return sendfile(into_socket(m), file, &from, MUCH);
}
static void *trickle(void *argument) {
    for (;;) {
        milliseconds(2);
        send((int)(intptr_t)argument, "0123456789abcdef", 16, 0);
    }
    return NULL;
}
static int from_socket(struct mover *m, int kind) {
    if (!m->fd[0]) {
        if (socketpair(AF_UNIX, kind, 0, m->fd)) exit(3);
        start(trickle, (void *)(intptr_t)m->fd[1]);
    }
    return m->fd[0];
}
static long by_recv(struct mover *m) {
    char whole[128];
    return recv(from_socket(m, SOCK_STREAM), whole, sizeof whole, MSG_WAITALL);
}
static long by_recvmmsg(struct mover *m) {
    char whole[8][16];
    struct iovec vectors[8];
    struct mmsghdr messages[8] = {0};
    for (int i = 0; i < 8; i++) {
        vectors[i] = (struct iovec){whole[i], 16};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    return recvmmsg(from_socket(m, SOCK_DGRAM), messages, 8, 0, NULL);
}
// Two polls, of which the second ends later.
static long by_getevents(struct mover *m) {
    static aio_context_t context;
    struct iocb polls[2] = {0}, *list[2] = {polls, polls + 1};
    struct io_event events[2];
    if (!context && syscall(SYS_io_setup, 8, &context)) exit(3);
    for (int i = 0; i < 2; i++) {
        if (!m->fd[i]) m->fd[i] = timerfd_create(CLOCK_MONOTONIC, 0);
        struct itimerspec in = {{0, 0}, {0, i ? 15000000 : 2000000}};
        timerfd_settime(m->fd[i], 0, &in, NULL);
        polls[i] = (struct iocb){.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = m->fd[i], .aio_buf = POLLIN};
    }
    if (syscall(SYS_io_submit, context, 2, list) != 2) return 2;
    long got = syscall(SYS_io_getevents, context, 2, 2, events, NULL);
    if (got == 1) syscall(SYS_io_getevents, context, 1, 1, events, NULL);
    return got;
}

static struct mover movers[] = {
    {"write", MUCH, by_write, {0}, 0, 0},       {"writev", MUCH, by_writev, {0}, 0, 0},
    {"send", MUCH, by_send, {0}, 0, 0},         {"sendmsg", MUCH, by_sendmsg, {0}, 0, 0},
    {"sendfile", MUCH, by_sendfile, {0}, 0, 0}, {"recv", 128, by_recv, {0}, 0, 0},
    {"recvmmsg", 8, by_recvmmsg, {0}, 0, 0},    {"io_getevents", 2, by_getevents, {0}, 0, 0},
};
enum { COUNT = sizeof movers / sizeof *movers };

static void *run(void *argument) {
    struct mover *m = argument;
    pthread_setname_np(pthread_self(), m->name);
    for (;;) {
        long moved = m->move(m);
        if (moved < 0) m->error = errno;
        else if (moved != m->asked) m->less++;
        milliseconds(80);
    }
    return NULL;
}

static volatile long ended = -1;
static const char *how;
// The first part goes, the rest stays for ever.
static void *stuck(void *argument) {
    int fd[2];
    (void)argument;
    pthread_setname_np(pthread_self(), "stuck");
    if (!strcmp(how, "pipe")) ended = pipe(fd) ? -2 : write(fd[1], much, MUCH);
    if (!strcmp(how, "line")) {
        if (pipe(fd)) exit(3);
        fcntl(fd[1], F_SETPIPE_SZ, 4096);
        if (write(fd[1], much, 4096) < 0) exit(3);
        ended = write(fd[1], much, 4096);
    }
    if (!strcmp(how, "datagram")) {
        if (socketpair(AF_UNIX, SOCK_DGRAM, 0, fd)) exit(3);
        long last;
        while ((last = write(fd[1], much, 8192)) == 8192);
        ended = last;
    }
    if (!strcmp(how, "messages")) {
        struct iovec one = {much, 1};
        struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = &one, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &one, .msg_iovlen = 1}}};
        if (socketpair(AF_UNIX, SOCK_DGRAM, 0, fd) || write(fd[1], "x", 1) != 1) exit(3);
        ended = recvmmsg(fd[0], messages, 2, 0, NULL);
        // The next one waits for what never comes.
        ended = ended * 1000 + (read(fd[0], much, 1) < 0 ? errno : 0);
    }
    return NULL;
}

int main(int argc, char **argv) {
    char line[64];
    setvbuf(stdout, NULL, _IONBF, 0);
    how = argc > 1 ? argv[1] : NULL;
    if (how) start(stuck, NULL);
    for (int i = 0; i < COUNT && !how; i++) start(run, &movers[i]);
    milliseconds(200);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        printf("%d", (answer() + other() / 10) / 2);
        for (int i = 0; i < COUNT; i++)
            if (movers[i].less || movers[i].error) printf(" %s=%d,%d", movers[i].name, movers[i].less, movers[i].error);
        if (ended != -1) printf(" ended=%ld", ended);
        putchar('\n');
    }
    return 0;
}
