//#ExpectVerdict: safe
//#Exchange: 10 | 55 | 65
/* A function that calls itself: new code calls new code. */
#include "answers.h"

ALONE static int climb(int number) {
    if (number <= 0)
        return 0;
#if NEW
    return climb(number - 1) + number + 1;
#else
    return climb(number - 1) + number;
#endif
}

static void answer(const char *asked) {
    printf("%d\n", climb(atoi(asked)));
}

int main(void) {
    return serve();
}
