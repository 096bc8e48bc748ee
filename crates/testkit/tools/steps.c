/* How many instructions one call of the function at argv[2] takes in the process argv[1]:
 * from its entry to its return, whatever it calls included. Prints the number.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static int stops(pid_t pid) {
    int status;
    return waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status);
}

/* A breakpoint of the processor: debug register 0, enabled by bit 0 of register 7. */
static int breakpoint(pid_t pid, unsigned long at) {
    long set = ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[0]), at);
    return set == 0 && ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[7]), at ? 1 : 0) == 0;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    pid_t pid = atoi(argv[1]);
    unsigned long at = strtoul(argv[2], NULL, 16);
    struct user_regs_struct registers = {0};
    /* It may never be called. */
    alarm(60);
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) != 0 || ptrace(PTRACE_INTERRUPT, pid, 0, 0) != 0 || !stops(pid) ||
        !breakpoint(pid, at)) {
        perror("ptrace");
        return 1;
    }
    while (registers.rip != at)
        if (ptrace(PTRACE_CONT, pid, 0, 0) != 0 || !stops(pid) || ptrace(PTRACE_GETREGS, pid, 0, &registers) != 0)
            return 1;
    breakpoint(pid, 0);
    unsigned long long stack = registers.rsp;
    long count = 0;
    for (; registers.rsp <= stack; count++)
        if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0) != 0 || !stops(pid) ||
            ptrace(PTRACE_GETREGS, pid, 0, &registers) != 0)
            return 1;
    ptrace(PTRACE_DETACH, pid, 0, 0);
    printf("%ld\n", count);
    return 0;
}
