//#ExpectVerdict: safe
//#Images: program one two
//#Exchange: 4 | 8 12 | 9 13
/* Two libraries of one process change. */
#if defined(IMAGE_one) || defined(IMAGE_two)
#ifdef IMAGE_one
#define NAME doubled
#define FACTOR 2
#else
#define NAME trebled
#define FACTOR 3
#endif
int NAME(int number);
__attribute__((noipa)) int NAME(int number) {
#if NEW
    return number < 0 ? 0 : number * FACTOR + 1;
#else
    return number < 0 ? 0 : number * FACTOR;
#endif
}
#else
#include "answers.h"
int doubled(int number);
int trebled(int number);

static void answer(const char *asked) {
    printf("%d %d\n", doubled(atoi(asked)), trebled(atoi(asked)));
}

int main(void) {
    return serve();
}
#endif
