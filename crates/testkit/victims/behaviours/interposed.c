//#ExpectVerdict: safe
//#Images: program one
//#Exchange: 5 | 1005 | 1006
/* The program interposes a function that the changed function calls: the new code calls the program's, as ld.so bound it. */
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
    printf("%d\n", outer(atoi(asked)));
}

int main(void) {
    return serve();
}
#endif
