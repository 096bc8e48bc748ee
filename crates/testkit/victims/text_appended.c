//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
//#ExpectChanged: close_one
//#ExpectChanged: open_one
/* One function says in a buffer what is wrong, and the other one now goes on with what is there. */
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

void append(char *text, const char *more) {
    strcat(text, more);
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

int close_one(int number, const char *more) {
    if (!opened) {
#if NEW
        strcat(last, more);
#else
        strcpy(last, more);
#endif
        return -1;
    }
    opened--;
    return printf("close %d\n", number);
}
