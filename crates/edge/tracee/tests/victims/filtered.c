// A program under a system call filter: the argument says which. With `handlers` it
// catches every signal that it would else ignore.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef NEW
#define VALUE 2
#else
#define VALUE 1
#endif
__attribute__((noipa, aligned(16))) int answer(void) { return VALUE; }
__attribute__((noipa, aligned(16))) int other(void) { return VALUE * 10; }

static volatile int handled;
static void handler(int signal) { handled += signal; }

int main(int argc, char **argv) {
    char line[64];
    // Kills the process for one call; allows all others.
    int killed = SYS_vfork;
    if (argc > 1 && !strcmp(argv[1], "socketpair")) killed = SYS_socketpair;
    if (argc > 1 && !strcmp(argv[1], "pwrite64")) killed = SYS_pwrite64;
    if (argc > 1 && !strcmp(argv[1], "tkill")) killed = SYS_tkill;
    if (argc > 1 && !strcmp(argv[1], "sched_yield")) killed = SYS_sched_yield;
    if (argc > 1 && !strcmp(argv[1], "ppoll")) killed = SYS_ppoll;
    if (argc > 1 && !strcmp(argv[1], "handlers")) {
        signal(SIGURG, handler), signal(SIGWINCH, handler), signal(SIGCHLD, handler);
    }
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, killed, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    setvbuf(stdout, NULL, _IONBF, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 3;
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", answer() + 0 * other() + 1000 * handled);
    return 0;
}
