//#ExpectVerdict: safe
//#Flags: -rdynamic
//#Exchange: 5 | 80 80 | 1 80
//#Exchange: 3 | 86 86 | 86 86
/* What a function that changed jumps to over a short way is called by nobody else here: it is
 * known by its exported name. */
#define _GNU_SOURCE
#include "answers.h"
#include <dlfcn.h>

#define EXPORTED ALONE __attribute__((visibility("protected")))

static unsigned steps;

EXPORTED unsigned counted(unsigned value) {
    steps ^= value;
    return value ^ 0x55;
}

EXPORTED unsigned checked(unsigned value) {
    if (NEW ? value >= 5 : value > 9)
        return 1;
    return counted(value);
}

static unsigned ask(const char *name, unsigned number) {
    return ((unsigned (*)(unsigned))dlsym(RTLD_DEFAULT, name))(number);
}

static void answer(const char *asked) {
    unsigned number = (unsigned)atoi(asked);
    printf("%u %u\n", ask("checked", number), ask("counted", number));
}

int main(void) {
    return serve();
}
