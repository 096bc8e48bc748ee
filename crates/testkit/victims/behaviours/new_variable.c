//#ExpectVerdict: refused
//#ExpectRefusal: new-data
/* New code counts in an array that the old program does not have. */
#include "answers.h"

#if NEW
static int counted[64];
#endif

ALONE static int changed(int number) {
#if NEW
    counted[number & 63] += number;
    return counted[0] > 1000000 ? counted[0] : number + 1;
#else
    return number;
#endif
}

static void answer(const char *asked) {
    printf("%d\n", changed(atoi(asked)));
}

int main(void) {
    return serve();
}
