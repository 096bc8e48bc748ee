//#ExpectVerdict: refused
//#ExpectRefusal: callback-replaced
//#Exchange: 5 | 15 6 | 15 6
/* Changed code hands out two functions that changed too, now each in the other's place:
 * which of them a pointer that old code stored should lead to is not told by the place. */
#include "answers.h"

static int (*first)(int), (*second)(int);

ALONE static int thrice(int number) {
    return number * 3 + (NEW ? number < -100 : 0);
}

ALONE static int next(int number) {
    return number + 1 + (NEW ? number < -200 : 0);
}

ALONE static int begin(int number) {
#if NEW
    if (number < -1000)
        return 0;
    second = thrice;
    first = next;
#else
    first = thrice;
    second = next;
#endif
    return number;
}

static void answer(const char *asked) {
    int number = atoi(asked);
    if (!first)
        number = begin(number);
    int a = first(number), b = second(number);
    printf("%d %d\n", a > b ? a : b, a > b ? b : a);
}

int main(void) {
    return serve();
}
