//#ExpectVerdict: safe
//#Exchange: 5 | 5 handled + | 6 handled +
/* A timer's signals are handled on an alternate stack, by the changed function, all the while. */
#include "answers.h"
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t handled;

ALONE static int changed(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

static void handle(int signal) {
    handled += changed(signal) > 0;
}

static void answer(const char *asked) {
    int before = handled;
    while (handled == before)
        pause();
    printf("%d handled +\n", changed(atoi(asked)));
}

int main(void) {
    static char space[65536];
    stack_t stack = {.ss_sp = space, .ss_size = sizeof space};
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct itimerval often = {{0, 500}, {0, 500}};
    if (sigaltstack(&stack, NULL) || sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &often, NULL))
        return 1;
    return serve();
}
