//#ExpectVerdict: refused
//#ExpectRefusal: callback-replaced
//#Exchange: 5 | 15 | 15
/* Changed code hands out one of two functions that changed too; which of them when is the
 * other way round now. The two places look alike, and what tells them apart is not there. */
#include "answers.h"

#ifndef MORE
#define MORE(number, by) (number)
#endif

static int (*held)(int);

ALONE static int thrice(int number) {
    return MORE(number, 7) * 3 + (NEW ? number < -100 : 0);
}

ALONE static int next(int number) {
    return MORE(number, 11) + 1 + (NEW ? number < -200 : 0);
}

ALONE static void hold(int (*callback)(int)) {
    held = callback;
}

ALONE static int begin(int number) {
#if NEW
    if (number >= 1000)
#else
    if (number < 1000)
#endif
        hold(thrice);
    else
        hold(next);
    return number;
}

static void answer(const char *asked) {
    int number = atoi(asked);
    if (!held)
        number = begin(number);
    printf("%d\n", held(number));
}

int main(void) {
    return serve();
}
