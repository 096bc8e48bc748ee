//#ExpectVerdict: review
//#ExpectReason: data-in-place
//#Exchange: 0 | zero 1 2 - | zero 1 2 -
//#Exchange: 1 | one 2 6 first | uno 7 21 first
//#Exchange: 2 | two 3 9 second | zwei 3 9 zweite
//#Exchange: 3 | three 4 8 - | three 4 8 noted
//#Exchange: 4 | four 5 10 fourth | four 5 10 -
//#Exchange: 5 | five 6 43 - | five 6 43 -
/* No code changes, but the table that it reads: texts, a number, a pointer that there was
 * not, and one that is gone. */
#include "answers.h"

ALONE static int added(int number) {
    return number + number;
}

ALONE static int multiplied(int number) {
    return number * 7 + 1;
}

ALONE static int tripled(int number) {
    return number * 3;
}

struct row {
    const char *name;
    long weight;
    int (*apply)(int);
    const char *note;
};

static const struct row rows[] = {
    {"zero", 1, added, NULL},
#if NEW
    {"uno", 7, tripled, "first"},
    {"zwei", 3, tripled, "zweite"},
    {"three", 4, added, "noted"},
    {"four", 5, added, NULL},
#else
    {"one", 2, tripled, "first"},
    {"two", 3, tripled, "second"},
    {"three", 4, added, NULL},
    {"four", 5, added, "fourth"},
#endif
    {"five", 6, multiplied, NULL},
};

ALONE static void answer(const char *asked) {
    const struct row *row = &rows[(unsigned)atoi(asked) % 6];
    int number = row->apply((int)row->weight);
    printf("%s %ld %d %s\n", row->name, row->weight, number, row->note ? row->note : "-");
}

int main(void) {
    return serve();
}
