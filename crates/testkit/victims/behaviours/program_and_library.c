//#ExpectVerdict: safe
//#Images: program one
//#Exchange: 5 | 50 | 66
/* Both sides of a contract change, in two images, in one transition. */
#ifdef IMAGE_one
int scale(int number, int factor);
__attribute__((noipa)) int scale(int number, int factor) {
#if NEW
    return (number + 1) * factor;
#else
    return number * factor;
#endif
}
#else
#include "answers.h"
int scale(int number, int factor);

ALONE static int scaled(int number) {
#if NEW
    return scale(number, 11);
#else
    return scale(number, 10);
#endif
}

static void answer(const char *asked) {
    printf("%d\n", scaled(atoi(asked)));
}

int main(void) {
    return serve();
}
#endif
