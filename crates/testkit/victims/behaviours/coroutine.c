//#ExpectVerdict: safe
//#ExpectOutcome: not-applied stack-switching
//#Exchange: 5 | 5 | 5
/* A function waits on a stack that no thread runs on: nobody can see it there, so nothing is changed. */
#include "answers.h"
#include <ucontext.h>

static ucontext_t home, other;
static char stack[65536];
static int handed;

ALONE static int changed(int number) {
    handed = number;
    swapcontext(&other, &home);
#if NEW
    return handed + 1;
#else
    return handed;
#endif
}

static void run(void) {
    for (;;)
        handed = changed(handed);
}

static void answer(const char *asked) {
    handed = atoi(asked);
    swapcontext(&home, &other);
    printf("%d\n", handed);
}

int main(void) {
    getcontext(&other);
    other.uc_stack.ss_sp = stack;
    other.uc_stack.ss_size = sizeof stack;
    makecontext(&other, run, 0);
    return serve();
}
