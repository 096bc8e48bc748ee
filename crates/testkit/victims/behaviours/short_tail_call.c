//#ExpectVerdict: safe
//#Exchange: 5 | 80 80 | 1 80
//#Exchange: 3 | 86 86 | 86 86
/* A function that changed ends in a jump to one beside it that did not, over so short a way
 * that the instruction reaches nothing else. */
#include "answers.h"

static unsigned steps;

ALONE static unsigned counted(unsigned value) {
    steps ^= value;
    return value ^ 0x55;
}

ALONE static unsigned checked(unsigned value) {
    if (NEW ? value >= 5 : value > 9)
        return 1;
    return counted(value);
}

static void answer(const char *asked) {
    unsigned number = (unsigned)atoi(asked);
    printf("%u %u\n", checked(number), counted(number));
}

int main(void) {
    return serve();
}
