/* Runs a command and prints its wall time in ns and the largest resident set,
 * in KiB, that it or any of its children ever had (wait4(2), getrusage(2)).
 * A small program of its own, because a child counts its parent's pages until
 * it executes something else.
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int main(int argc, char **argv) {
    int status;
    struct rusage self, children;
    if (argc < 2)
        return 2;
    uint64_t began = now_ns();
    pid_t child = fork();
    if (child == 0) {
        execv(argv[1], argv + 1);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &self) != child || getrusage(RUSAGE_CHILDREN, &children) != 0)
        return 2;
    long largest = self.ru_maxrss > children.ru_maxrss ? self.ru_maxrss : children.ru_maxrss;
    fprintf(stderr, "\nmeasured %lu %ld %d\n", (unsigned long)(now_ns() - began), largest,
            WIFEXITED(status) ? WEXITSTATUS(status) : 128);
    return 0;
}
