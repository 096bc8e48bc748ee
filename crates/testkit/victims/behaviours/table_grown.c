//#ExpectVerdict: review
//#Exchange: 0 | one | one
//#Exchange: 1 | two | two
//#Exchange: 3 | none | four
//#Exchange: 9 | none | none
/* A table of texts has more rows; what lies behind it moved. */
#include "answers.h"

static const char *const names[] = {
    "one",
    "two",
#if NEW
    "three",
    "four",
#endif
};

static const char *const others[] = {"a", "b", "c"};

ALONE static const char *name(unsigned index) {
    return index < sizeof names / sizeof *names ? names[index] : "none";
}

ALONE static const char *other(unsigned index) {
    return others[index % 3];
}

static void answer(const char *asked) {
    unsigned index = (unsigned)atoi(asked);
    puts(index == 77777 ? other(index) : name(index));
}

int main(void) {
    return serve();
}
