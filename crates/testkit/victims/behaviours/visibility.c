//#ExpectVerdict: safe
//#Images: program one
//#Exchange: 5 | 16 | 17
/* The changed function calls hidden and protected functions of its library. */
#ifdef IMAGE_one
int outer(int number);
int guarded(int number);
__attribute__((noipa, visibility("hidden"))) int inner(int number) {
    return number * 2;
}
__attribute__((noipa, visibility("protected"))) int guarded(int number) {
    return number + 1;
}
__attribute__((noipa)) int outer(int number) {
#if NEW
    return inner(number) + guarded(number) + 1;
#else
    return inner(number) + guarded(number);
#endif
}
#else
#include "answers.h"
int outer(int number);
int guarded(int number);

static void answer(const char *asked) {
    printf("%d\n", outer(atoi(asked)));
}

int main(void) {
    return guarded(0) == 1 ? serve() : 1;
}
#endif
