//#ExpectVerdict: safe
//#ExpectOutcome: not-applied import-unresolved
//#Flags: -rdynamic
//#Images: program one
//#Exchange: 5 | 5 | 6
/* New code of a library calls what only the new program exports: nothing in the running
 * one has that name. */
#ifdef IMAGE_one
int next(int number);
#if NEW
int step(void);
#endif
__attribute__((noipa)) int next(int number) {
#if NEW
    return number + step() + 1;
#else
    return number + (number > 1000000);
#endif
}
#else
#include "answers.h"
int next(int number);
#if NEW
int step(void);
#else
static
#endif
__attribute__((noipa)) int step(void) {
    return 0;
}

static void answer(const char *asked) {
    printf("%d\n", next(atoi(asked)) + step());
}

int main(void) {
    return serve();
}
#endif
