//#ExpectVerdict: safe
//#Flags: -fcf-protection=full
//#Exchange: 3 | 4 2 | 5 2
/* Functions begin with endbr64, which the detour leaves in its place; one is called through a pointer. */
#include "answers.h"

ALONE static int up(int number) {
#if NEW
    return number + 2;
#else
    return number + 1;
#endif
}

ALONE static int down(int number) {
    return number - 1;
}

static int (*const volatile steps[])(int) = {up, down};

static void answer(const char *asked) {
    printf("%d %d\n", steps[0](atoi(asked)), steps[1](atoi(asked)));
}

int main(void) {
    return serve();
}
