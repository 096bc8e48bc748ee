//#ExpectVerdict: safe
//#Exchange: 5 | it: 5 | it: 5
//#Exchange: 2000 | it: 2000 | refused
/* What a function that changed jumps to over a short way did not change, and prints a text: of
 * that the payload has a copy, by whose address nobody knows it. */
#include "answers.h"

ALONE static void say(const char *who, long number) {
    printf("%s: %ld\n", who, number);
}

ALONE static void add(const char *text, const char *who) {
    long number = atol(text);
    if (NEW && number > 1000) {
        puts("refused");
        return;
    }
    say(who, number);
}

static void answer(const char *asked) {
    static char name[8] = "it";
    add(asked, name);
}

int main(void) {
    return serve();
}
