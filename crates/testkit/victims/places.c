//#ExpectVerdict: safe
//#ExpectChanged: answer
/* A program that makes its own surroundings hard (argv[1]), and then says what it gets. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096L
#define HUGE_PAGE (2UL << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#ifdef LARGE
/* More text than one huge page. */
__asm__(".pushsection .text.filler,\"ax\",@progbits\n.balign 2097152\n.skip 4194304, 0x90\n.popsection\n");
#endif

__attribute__((noipa)) long answer(long turn) { return turn * 3 + (NEW ? 200 : 100); }

static void rest(long milliseconds) {
    struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&pause, &pause) && errno == EINTR)
        ;
}

/* A limit just above what is in use. */
static int limit(int what, const char *line, long room) {
    char text[256];
    long used = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(text, sizeof text, status))
        if (!strncmp(text, line, strlen(line)))
            used = atol(text + strlen(line)) * 1024;
    struct rlimit limit = {(rlim_t)(used + room), (rlim_t)(used + room)};
    return used < 0 || setrlimit(what, &limit);
}

/* Where the text is: this program's first executable mapping. */
static char *text(size_t *len) {
    char line[512];
    unsigned long start, end;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, " r-xp ") && sscanf(line, "%lx-%lx", &start, &end) == 2) {
            fclose(maps);
            *len = end - start;
            return (char *)start;
        }
    return NULL;
}

/* The text becomes a copy of itself that no file is behind. */
static int detach_from_file(void) {
    size_t len = 0;
    char *at = text(&len), *copy = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED)
        return 1;
    memcpy(copy, at, len);
    if (mprotect(copy, len, PROT_READ | PROT_EXEC))
        return 1;
    return mremap(copy, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED;
}

static int collapse_text(void) {
    size_t len = 0, huge = 0;
    char *at = text(&len);
    for (char *page = (char *)(((unsigned long)at + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1)); page + HUGE_PAGE <= at + len;
         page += HUGE_PAGE)
        huge += !madvise(page, HUGE_PAGE, MADV_COLLAPSE);
    return huge == 0;
}

/* A child, and a parent that is told of everything that stops or continues it. */
static void watch_child(void) {
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        return;
    }
    printf("child %d\n", child);
    fflush(stdout);
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED) == 0)
            printf("saw %d of %d\n", info.si_code, info.si_pid);
        fflush(stdout);
    }
}

/* Until a child gives the memory back, its parent cannot stop. */
__attribute__((noipa)) static void wait_for_borrower(void) {
    printf("borrowed\n");
    fflush(stdout);
    if (vfork() == 0) {
        struct timespec pause = {6, 0};
        syscall(SYS_nanosleep, &pause, NULL);
        _exit(0);
    }
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    int failed = 0;
    if (!strcmp(how, "address-space")) {
        failed = limit(RLIMIT_AS, "VmSize:", 2 * PAGE);
    } else if (!strcmp(how, "locked")) {
        failed = mlockall(MCL_CURRENT | MCL_FUTURE) || limit(RLIMIT_MEMLOCK, "VmLck:", 0) ||
                 syscall(SYS_setresuid, 65534, 65534, 65534);
    } else if (!strcmp(how, "undumpable")) {
        failed = prctl(PR_SET_DUMPABLE, 0);
    } else if (!strcmp(how, "no-file")) {
        failed = detach_from_file();
    } else if (!strcmp(how, "collapsed")) {
        failed = collapse_text();
    } else if (!strcmp(how, "watched")) {
        watch_child();
    } else if (!strcmp(how, "vfork")) {
        wait_for_borrower();
    }
    printf("ready %d\n", failed ? errno : 0);
    fflush(stdout);
    for (long turn = 0, last = 0;; turn++, rest(5)) {
        long got = strcmp(how, "silent") ? answer(turn) - turn * 3 : 1;
        if (got != last)
            printf("got %ld\n", got);
        fflush(stdout);
        last = got;
    }
}
