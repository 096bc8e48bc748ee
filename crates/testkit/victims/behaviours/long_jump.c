//#ExpectVerdict: safe
//#Exchange: 5 | 15 | 16
/* The changed function is left by longjmp. */
#include "answers.h"
#include <setjmp.h>

static jmp_buf back;

ALONE static void leave(int number) {
#if NEW
    longjmp(back, number + 11);
#else
    longjmp(back, number + 10);
#endif
}

static void answer(const char *asked) {
    int got = setjmp(back);
    if (!got)
        leave(atoi(asked));
    printf("%d\n", got);
}

int main(void) {
    return serve();
}
