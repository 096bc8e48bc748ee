// A program under a system call filter: the argument says which.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
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

int main(int argc, char **argv) {
    char line[64];
    // Kills the process for one call; allows all others.
    int killed = argc > 1 && !strcmp(argv[1], "socketpair") ? SYS_socketpair : SYS_vfork;
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
    while (fgets(line, sizeof line, stdin)) printf("%d\n", answer());
    return 0;
}
