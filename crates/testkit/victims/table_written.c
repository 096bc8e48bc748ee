//#ExpectVerdict: refused
//#ExpectRefusal: new-data
/* What lies among the tables that the loader makes read-only is written before it does so, as
 * the C library does: a copy of it would hold what the file holds, not what the process does. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *chosen[2] __attribute__((section(".data.rel.ro"))) = {"a", "b"};
#if NEW
static const char *const names[] = {"one", "two", "three"};
#endif

__attribute__((constructor)) static void choose(void) {
    if (getenv("CHOSEN"))
        chosen[1] = getenv("CHOSEN");
}

__attribute__((noipa)) static void show(unsigned number) {
#if NEW
    printf("%s %s\n", names[number % 3], chosen[number & 1]);
#else
    printf("%s\n", chosen[number & 1]);
#endif
}

int main(void) {
    for (unsigned number = 0; number < 1000000; number++) {
        show(number);
        sleep(1);
    }
    return 0;
}
