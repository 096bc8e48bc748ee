//#ExpectVerdict: review
//#ExpectRefusal: read-only-data-changed
//#Exchange: 2 | 30 | 31
/* New code brings its own table; that nothing else calculates its way to the old one is for a person to say. */
#include "answers.h"

ALONE static int value(int number) {
#if NEW
    static const int table[] = {11, 21, 31, 41, 51, 61};
#else
    static const int table[] = {10, 20, 30, 40};
#endif
    return table[number & 3];
}

static void answer(const char *asked) {
    printf("%d\n", value(atoi(asked)));
}

int main(void) {
    return serve();
}
