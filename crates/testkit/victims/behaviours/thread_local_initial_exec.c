//#ExpectVerdict: safe
//#Images: program one
//#LibraryFlags: -ftls-model=initial-exec
//#Exchange: 5 | 5 | 6
/* A library's thread-local variable through a TPOFF slot of its GOT. */
#ifdef IMAGE_one
int remember(int number);
extern __thread int kept;
__thread int kept;
__attribute__((noipa)) int remember(int number) {
#if NEW
    kept = number + 1;
#else
    kept = number;
#endif
    return kept;
}
#else
#include "answers.h"
int remember(int number);
extern __thread int kept;

static void answer(const char *asked) {
    int got = remember(atoi(asked));
    printf("%d\n", got == kept ? got : -1);
}

int main(void) {
    return serve();
}
#endif
