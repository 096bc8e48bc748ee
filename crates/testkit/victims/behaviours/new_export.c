//#ExpectVerdict: safe
//#Flags: -rdynamic
//#Images: program one
//#Exchange: 5 | 5 5 | 6 5
//#Exchange: 2000 | 2000 1000 | 1000 999
/* New code calls a function that its library exports from now on, and one that it exported
 * before and did not call itself: both by name, as any other image would. */
int next(int number);
int limit(int number);
int clamp(int number);

#ifdef IMAGE_one
__attribute__((noipa)) int limit(int number) {
    return number > 1000 ? (NEW ? 999 : 1000) : number;
}

#if NEW
__attribute__((noipa)) int clamp(int number) {
    return limit(number) + 1;
}
#endif

__attribute__((noipa)) int next(int number) {
#if NEW
    return clamp(number);
#else
    return number + (number > 1000000);
#endif
}
#else
#include "answers.h"

#ifdef CLAMP
CLAMP
#endif

static void answer(const char *asked) {
    int number = atoi(asked);
    printf("%d %d\n", next(number), limit(number));
}

int main(void) {
    return serve();
}
#endif
