//#ExpectVerdict: safe
//#Exchange: 3 | 3 6 4 | 4 7 5
/* Functions of fewer bytes than a jump has: it reaches into the padding behind them, which nothing runs. */
#include "answers.h"

ALONE static int same(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

ALONE static int twice(int number) {
#if NEW
    return number * 2 + 1;
#else
    return number * 2;
#endif
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
    printf("%d %d %d\n", same(number), twice(number), next(number));
}

int main(void) {
    return serve();
}
