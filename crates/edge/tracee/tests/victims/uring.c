// Calls that the kernel's own workers make in the process's name, through io_uring, and sleep
// in: none of them may be told of an interruption.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef NEW
#define VALUE 2
#else
#define VALUE 1
#endif
__attribute__((noipa, aligned(16))) int answer(void) { return VALUE; }
__attribute__((noipa, aligned(16))) int second(void) { return VALUE * 10; }

static int ring, from[2], to[2];
static unsigned *sq_tail, *sq_array, *cq_head, *cq_tail;
static struct io_uring_sqe *entries;
static struct io_uring_cqe *results;
static volatile int wrong, turns;

static int open_ring(void) {
    struct io_uring_params p = {0};
    ring = syscall(SYS_io_uring_setup, 1, &p);
    if (ring < 0) return 0;
    int how = PROT_READ | PROT_WRITE;
    char *sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, how, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof *results, how, MAP_SHARED, ring, IORING_OFF_CQ_RING);
    entries = mmap(NULL, p.sq_entries * sizeof *entries, how, MAP_SHARED, ring, IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || entries == MAP_FAILED) return 0;
    sq_tail = (unsigned *)(sq + p.sq_off.tail), sq_array = (unsigned *)(sq + p.sq_off.array);
    cq_head = (unsigned *)(cq + p.cq_off.head), cq_tail = (unsigned *)(cq + p.cq_off.tail);
    results = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
    return 1;
}

// What came of one splice of one byte, made by a worker; the ring has one entry, and room for two results.
static int splice_one(void) {
    entries[0] = (struct io_uring_sqe){.opcode = IORING_OP_SPLICE, .fd = to[1], .splice_fd_in = from[0], .off = -1,
                                       .splice_off_in = -1, .len = 1, .flags = IOSQE_ASYNC};
    sq_array[0] = 0;
    __atomic_store_n(sq_tail, *sq_tail + 1, __ATOMIC_RELEASE);
    for (int submit = 1; *cq_head == __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);)
        if (syscall(SYS_io_uring_enter, ring, submit, 1, IORING_ENTER_GETEVENTS, NULL, 0) >= 0) submit = 0;
    int result = results[*cq_head % 2].res;
    __atomic_store_n(cq_head, *cq_head + 1, __ATOMIC_RELEASE);
    return result;
}

static void *splices(void *nothing) {
    char byte;
    for (;; turns++)
        if (splice_one() != 1) wrong++;
        else if (read(to[0], &byte, 1) != 1) wrong++;
    return nothing;
}

static void *feeds(void *nothing) {
    for (;;) {
        usleep(20000);
        if (write(from[1], "x", 1) != 1) wrong++;
    }
    return nothing;
}

int main(void) {
    char line[64];
    pthread_t t;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (pipe(from) || pipe(to)) return 3;
    int there = open_ring();
    if (there && (pthread_create(&t, NULL, splices, NULL) || pthread_create(&t, NULL, feeds, NULL))) return 3;
    while (there && turns < 2) usleep(1000);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d %s %d\n", answer() + second(), there ? "wrong" : "none", wrong);
    return 0;
}
