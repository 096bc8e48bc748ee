//#ExpectVerdict: refused
//#ExpectRefusal: data-resized
/* A new table lies before one that did not change and that new code, which did not do so before,
 * refers to: that place may be the end of the one as well as the start of the other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const defaults[] = {"one", "two", "three"};
static char *name;

__attribute__((noipa)) static int is_default(const char *text) {
    for (int i = 0; i < 3; i++)
        if (text == defaults[i])
            return 1;
    return 0;
}

__attribute__((noipa)) static void drop(void) {
    if (name && !is_default(name))
        free(name);
    name = 0;
}

#if NEW
static const char *const names[] = {"zero:", "one:", "two:", "three:"};
#endif

__attribute__((noipa)) static void set(unsigned number) {
#if NEW
    name = number < 3 ? (char *)defaults[number] : strdup("own");
    fputs(names[number & 3], stdout);
#else
    name = strdup(number < 3 ? "one" : "own");
#endif
}

int main(void) {
    for (unsigned number = 0; number < 1000000; number++) {
        drop();
        set(number);
        puts(name);
        sleep(1);
    }
    return 0;
}
