/* The floor of any tracer: stops all threads of a process, reads their
 * registers and lets them go, `argv[2]` times with `argv[3]` µs between. Prints
 * the longest stop in ns, from the first interruption to the last release.
 */
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <elf.h>

enum { MAX_THREADS = 4096 };

static int threads(pid_t pid, pid_t *tids) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *directory = opendir(path);
    int count = 0;
    if (!directory)
        return -1;
    for (struct dirent *entry; (entry = readdir(directory)) && count < MAX_THREADS;)
        if (atoi(entry->d_name) > 0)
            tids[count++] = atoi(entry->d_name);
    closedir(directory);
    return count;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int stop_all(pid_t pid, uint64_t *stopped_ns) {
    static pid_t tids[MAX_THREADS];
    int count = threads(pid, tids), status;
    if (count <= 0)
        return 1;
    for (int i = 0; i < count; i++)
        if (ptrace(PTRACE_SEIZE, tids[i], 0, 0) != 0)
            return 1;
    uint64_t began = now_ns();
    for (int i = 0; i < count; i++)
        if (ptrace(PTRACE_INTERRUPT, tids[i], 0, 0) != 0)
            return 1;
    for (int i = 0; i < count; i++)
        if (waitpid(tids[i], &status, __WALL) != tids[i])
            return 1;
    for (int i = 0; i < count; i++) {
        struct user_regs_struct registers;
        struct iovec whole = {&registers, sizeof registers};
        if (ptrace(PTRACE_GETREGSET, tids[i], NT_PRSTATUS, &whole) != 0)
            return 1;
    }
    for (int i = 0; i < count; i++)
        if (ptrace(PTRACE_DETACH, tids[i], 0, 0) != 0)
            return 1;
    *stopped_ns = now_ns() - began;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    /* As Salve does: else it would measure whose turn it is. */
    struct sched_param lowest = {.sched_priority = 1};
    setpriority(PRIO_PROCESS, 0, -20);
    sched_setscheduler(0, SCHED_FIFO, &lowest);
    uint64_t longest = 0;
    for (int i = 0; i < atoi(argv[2]); i++) {
        uint64_t stopped = 0;
        if (stop_all(atoi(argv[1]), &stopped) != 0) {
            perror("ptrace");
            return 1;
        }
        longest = stopped > longest ? stopped : longest;
        usleep((useconds_t)atoi(argv[3]));
    }
    printf("%lu\n", (unsigned long)longest);
    return 0;
}
