//#ExpectVerdict: safe
//#Exchange: 5 | 5 | 6
/* A program under a system call filter: `confined loosely` forbids what neither it nor Salve needs, `confined
 * strictly` allows what it needs itself and nothing else, `confined killed` is killed by anything else. */
#include "answers.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

ALONE static int changed(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

static void answer(const char *asked) {
    printf("%d\n", changed(atoi(asked)));
}

#define LOAD BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define WHEN(call, action)                                                                                             \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_##action)
#define OWN_CALLS                                                                                                      \
    WHEN(read, ALLOW), WHEN(write, ALLOW), WHEN(exit_group, ALLOW), WHEN(rt_sigprocmask, ALLOW),                       \
        WHEN(restart_syscall, ALLOW), WHEN(newfstatat, ALLOW), WHEN(brk, ALLOW), WHEN(getrandom, ALLOW)

int main(int count, char **words) {
    struct sock_filter loose[] = {LOAD, WHEN(reboot, KILL_PROCESS), WHEN(mount, ERRNO | EPERM),
                                  BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_filter strict[] = {LOAD, OWN_CALLS, BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)};
    struct sock_filter killed[] = {LOAD, OWN_CALLS, BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)};
    const char *how = count > 1 ? words[1] : "";
    struct sock_fprog filter = {sizeof loose / sizeof *loose, loose};
    if (!strcmp(how, "strictly"))
        filter = (struct sock_fprog){sizeof strict / sizeof *strict, strict};
    if (!strcmp(how, "killed"))
        filter = (struct sock_fprog){sizeof killed / sizeof *killed, killed};
    if (*how && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)))
        return 1;
    return serve();
}
