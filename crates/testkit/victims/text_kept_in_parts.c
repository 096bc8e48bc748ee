//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: add
/* Compilers copy a text into a variable in pieces that overlap. A piece that begins within the one
 * before lies in the variable whose beginning other code shows. */
#include <string.h>

static int count;
static char last[96];
static long total;

const char *last_complaint(void) {
    return last;
}

long sum(void) {
    return count ? total / count : 0;
}

int add(long value) {
#if NEW
    if (count >= 256) {
        strcpy(last, "there are too many of them");
        return -1;
    }
#endif
    count++;
    total += value;
    return 0;
}
