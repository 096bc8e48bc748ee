//#ExpectVerdict: safe
//#Exchange: 3 | 6 | 7
/* One function changes. */
#include "answers.h"

ALONE static int twice(int number) {
#if NEW
    return number * 2 + 1;
#else
    return number * 2;
#endif
}

static void answer(const char *asked) {
    printf("%d\n", twice(atoi(asked)));
}

int main(void) {
    return serve();
}
