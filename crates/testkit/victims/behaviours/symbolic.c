//#ExpectVerdict: safe
//#Images: program one
//#LibraryFlags: -Wl,-Bsymbolic
//#Exchange: 5 | 15 1005 | 16 1005
/* With -Bsymbolic the library calls its own function though the program interposes it; so does the new code. */
#ifdef IMAGE_one
int base(void);
int outer(int number);
__attribute__((noipa)) int base(void) {
    return 10;
}
__attribute__((noipa)) int outer(int number) {
#if NEW
    return number + base() + 1;
#else
    return number + base();
#endif
}
#else
#include "answers.h"
int base(void);
int outer(int number);

__attribute__((noipa)) int base(void) {
    return 1000;
}

static void answer(const char *asked) {
    printf("%d %d\n", outer(atoi(asked)), base() + atoi(asked));
}

int main(void) {
    return serve();
}
#endif
