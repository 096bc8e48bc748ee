//#ExpectVerdict: safe
//#Exchange: 2 | two of three | TWO of four
/* New code brings its own strings and jump tables. */
#include "answers.h"

ALONE static const char *name(int number) {
    switch (number) {
#if NEW
    case 0: return "NONE of four";
    case 1: return "ONE of four";
    case 2: return "TWO of four";
    case 3: return "THREE of four";
    case 4: return "FOUR of four";
    case 5: return "five of four?";
#else
    case 0: return "none of three";
    case 1: return "one of three";
    case 2: return "two of three";
    case 3: return "three of three";
    case 4: return "four of three?";
#endif
    default: return "many";
    }
}

static void answer(const char *asked) {
    puts(name(atoi(asked)));
}

int main(void) {
    return serve();
}
