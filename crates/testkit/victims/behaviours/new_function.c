//#ExpectVerdict: safe
//#Exchange: 200 | 200 | 100
//#Exchange: -5 | -5 | 0
/* The changed function calls one that the old program lacks. */
#include "answers.h"

#if NEW
ALONE static int clamp(int number, int least, int most) {
    return number < least ? least : number > most ? most : number;
}
#endif

ALONE static int percent(int number) {
#if NEW
    return clamp(number, 0, 100);
#else
    return number + (number > 1000000);
#endif
}

static void answer(const char *asked) {
    printf("%d\n", percent(atoi(asked)));
}

int main(void) {
    return serve();
}
