//#ExpectVerdict: refused
//#ExpectRefusal: entry-too-small
//#Flags: -Os
/* A function of fewer bytes than a jump has, and another one right behind it. */
#include "answers.h"

ALONE static int twice(int number) {
#if NEW
    return number * 2 + 1;
#else
    return number * 2;
#endif
}

ALONE static int thrice(int number) {
    return number * 3;
}

ALONE static int next(int number) {
#if NEW
    return number + 2;
#else
    return number + 1;
#endif
}

static void answer(const char *asked) {
    int number = atoi(asked);
    printf("%d %d %d\n", twice(number), thrice(number), next(number));
}

int main(void) {
    return serve();
}
