//#ExpectVerdict: review
//#ExpectRefusal: startup-code
//#ExpectChanged: read_limits
/* What the update corrects is calculated once, before the loop: a running
 * process has done it already, and new code would not do it again. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static unsigned long limit;

__attribute__((noipa, constructor)) static void read_limits(void) {
    const char *text = getenv("LIMIT");
    limit = text ? strtoul(text, NULL, 10) : 1000;
#if NEW
    if (limit > 65536)
        limit = 65536;
#endif
}

__attribute__((noipa)) int work(unsigned long turn) { return printf("%lu of %lu\n", turn, limit); }

int main(void) {
    for (unsigned long turn = 0; turn < limit && work(turn) > 0; turn++)
        sleep(1);
    return 0;
}
