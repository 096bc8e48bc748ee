//#ExpectVerdict: safe
//#ExpectOutcome: not-applied import-unresolved
//#Images: program one two three
//#Exchange: 5 | 5 | 6
/* New code calls what two mapped libraries define: which one the loader would take
 * depends on an order that no file tells. */
#if defined(IMAGE_two) || defined(IMAGE_three)
int step(void);
int step(void) {
    return 1;
}
#elif defined(IMAGE_one)
int next(int number);
#if NEW
int step(void);
#endif
__attribute__((noipa)) int next(int number) {
#if NEW
    return number + step();
#else
    return number + (number > 1000000);
#endif
}
#else
#include "answers.h"
int next(int number);
int step(void);

static void answer(const char *asked) {
    printf("%d\n", next(atoi(asked)));
}

int main(void) {
    return step() ? serve() : 1;
}
#endif
