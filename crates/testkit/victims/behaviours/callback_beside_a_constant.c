//#ExpectVerdict: review
//#ExpectReason: callback-by-place
//#Exchange: 4 | 8 | 9
/* Code that changed hands out a function that changed too, together with a number that is
 * read from among the constants, and is the same. */
#include "answers.h"

#ifndef BY
#define BY 2.75
#endif

static int (*held)(int);
static double weight;

ALONE static int twice(int number) {
    return number * 2 + NEW;
}

ALONE static void hold(int (*callback)(int), double by) {
    held = callback;
    weight = by;
}

ALONE static int begin(int number) {
    hold(twice, BY);
    return number < (NEW ? -1000 : -100) ? -100 : number;
}

static void answer(const char *asked) {
    int number = atoi(asked);
    if (!held)
        number = begin(number);
    printf("%d\n", weight > 2.5 ? held(number) : 0);
}

int main(void) {
    return serve();
}
