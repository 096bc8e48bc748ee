//#ExpectVerdict: safe
//#Flags: -pthread
//#Exchange: 5 | 5 | 6
/* Under a filter that kills who makes `restart_syscall`, as the kernel does in the name of a thread that was stopped
 * in a call with a timeout. Its authors listed what the program calls. */
#include "answers.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

ALONE static int changed(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

ALONE static void answer(const char *asked) {
    printf("%d\n", changed(atoi(asked)));
}

static void *sleeps(void *nothing) {
    struct timespec pause = {1000, 0};
    for (;;)
        nanosleep(&pause, NULL);
    return nothing;
}

static void *waits(void *nothing) {
    int never = 0;
    struct timespec pause = {1000, 0};
    for (;;)
        syscall(SYS_futex, &never, 0, 0, &pause, NULL, 0);
    return nothing;
}

int main(void) {
    struct sock_filter calls[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_restart_syscall, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof calls / sizeof *calls, calls};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
        return 1;
    pthread_t one, other;
    if (pthread_create(&one, NULL, sleeps, NULL) || pthread_create(&other, NULL, waits, NULL))
        return 1;
    char line[256];
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    puts("ready");
    fflush(stdout);
    while (poll(&input, 1, 1000000) >= 0 && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        answer(line);
        fflush(stdout);
    }
    (void)serve;
    return 0;
}
