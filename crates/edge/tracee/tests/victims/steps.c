// A program that steps through its own code: its one thread sets the trap flag, and a handler
// counts the traps. With an argument it sleeps in a call with the flag set until it is asked.
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef NEW
#define VALUE 2
#else
#define VALUE 1
#endif
__attribute__((noipa, aligned(16))) int answer(void) { return VALUE; }
__attribute__((noipa, aligned(16))) int second(void) { return VALUE * 10; }

static volatile int traps, wrong;

static void trapped(int signal) {
    (void)signal;
    traps++;
}

// Over the red zone, and back: the flag is set by the first `popfq` and cleared by the second.
#define STEPPING(code, ...)                                                                                            \
    __asm__ volatile("lea -128(%%rsp),%%rsp\n pushfq\n orq $0x100,(%%rsp)\n popfq\n" code                              \
                     "\n pushfq\n andq $~0x100,(%%rsp)\n popfq\n lea 128(%%rsp),%%rsp" __VA_ARGS__)

static void step(void) {
    int before = traps;
    STEPPING("nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop", ::: "memory", "cc");
    if (traps - before < 8 || traps - before > 12) wrong++;
}

static void sleep_stepping(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    long result;
    STEPPING("syscall", : "=a"(result) : "a"(SYS_poll), "D"(&input), "S"(1), "d"(-1) : "rcx", "r11", "memory", "cc");
    if (result != 1) wrong++;
}

int main(int argc, char **argv) {
    char line[64];
    struct pollfd input = {.fd = 0, .events = POLLIN};
    (void)argv;
    setvbuf(stdout, NULL, _IONBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);
    signal(SIGTRAP, trapped);
    puts("ready");
    for (;;) {
        if (argc > 1) sleep_stepping();
        else step();
        if (poll(&input, 1, 0) != 1) continue;
        if (!fgets(line, sizeof line, stdin)) return 0;
        printf("%d wrong %d\n", answer() + second(), wrong);
    }
}
