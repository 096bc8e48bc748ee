//#ExpectVerdict: refused
//#ExpectRefusal: callback-replaced
//#Exchange: 5 | 15 6 | 15 6
/* Changed code hands out two functions that changed too, each with a constant of its own
 * whose first byte is printable and precedes a zero. They are no texts, and are exchanged. */
#include "answers.h"

struct role {
    int port, kind;
};
static const struct role first = {80, 1}, second = {80, 2};
static int (*held[3])(int);

ALONE static int thrice(int number) {
    return number * 3 + (NEW ? number < -100 : 0);
}

ALONE static int next(int number) {
    return number + 1 + (NEW ? number < -200 : 0);
}

ALONE static void attach(const struct role *role, int (*callback)(int)) {
    held[role->kind] = callback;
}

ALONE static int begin(int number) {
#if NEW
    attach(&second, thrice);
    attach(&first, next);
    return number < -1000 ? -1000 : number;
#else
    attach(&first, thrice);
    attach(&second, next);
    return number;
#endif
}

static void answer(const char *asked) {
    int number = atoi(asked);
    if (!held[1])
        number = begin(number);
    printf("%d %d\n", held[1](number), held[2](number));
}

int main(void) {
    return serve();
}
