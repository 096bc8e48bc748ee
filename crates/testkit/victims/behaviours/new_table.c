//#ExpectVerdict: review
//#Flags: -rdynamic
//#Exchange: 0 | 0 none | 0 1 one 1
//#Exchange: 5 | 5 none | 10 2 two 2
//#Exchange: 14 | 14 none | 17 3 three 3
/* New code reads a table that the old program lacks: of texts, of its own functions, one of
 * which changed, and of one of the C library. */
#include "answers.h"

int half(int number);
int twice(int number);
int more(int number);

ALONE int half(int number) {
    return number / 2;
}

ALONE int twice(int number) {
    return number * 2 + (NEW ? number < -100 : 0);
}

ALONE int more(int number) {
    return number + 3;
}

#if NEW
struct row {
    const char *name;
    int (*apply)(int);
    int (*measure)(const char *);
};

static const struct row rows[] = {
    {"1 one", half, atoi},
    {"2 two", twice, atoi},
    {"3 three", more, atoi},
};
#endif

ALONE static void show(int number) {
#if NEW
    const struct row *row = &rows[(unsigned)number / 5 % 3];
    printf("%d %s %d\n", row->apply(number), row->name, row->measure(row->name));
#else
    printf("%d none\n", number);
#endif
}

static void answer(const char *asked) {
    int number = atoi(asked);
    if (number == 77777)
        printf("%d %d %d\n", half(number), twice(number), more(number));
    show(number);
    fflush(stdout);
}

int main(void) {
    return serve();
}
