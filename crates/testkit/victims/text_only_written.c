//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: close_one
//#ExpectChanged: open_one
/* Two functions say in a buffer what is wrong, now with a number. They never read it: neither finds
 * there what the other left. */
#include <stdio.h>
#include <string.h>

static char last[128];
static int opened;

const char *last_complaint(void) {
    return last;
}

int how_many(void) {
    return opened;
}

int open_one(int number) {
    if (number < 0) {
#if NEW
        snprintf(last, sizeof last, "cannot open %d", number);
#else
        strcpy(last, "no such number");
#endif
        return -1;
    }
    opened++;
    return printf("open %d\n", number);
}

int close_one(int number) {
    if (!opened) {
#if NEW
        snprintf(last, sizeof last, "%d was never opened", number);
#else
        strcpy(last, "was never opened");
#endif
        return -1;
    }
    opened--;
    return printf("close %d\n", number);
}
