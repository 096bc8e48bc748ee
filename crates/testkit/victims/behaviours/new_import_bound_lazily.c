//#ExpectVerdict: safe
//#Flags: -Wl,-z,lazy
//#Exchange: 5 | 5 | 5
//#Exchange: 2000 | 2000 | 0
/* One import more moves the end of the initialised data to where the rest begins, or away from
 * there: what the compiler's own start-up code refers to is the same end all the same. */
#include "answers.h"
#include <unistd.h>

static long last;

ALONE static void answer(const char *asked) {
    int number = atoi(asked);
    if (NEW && (getppid() == 0 || number > 1000))
        number = 0;
    last = number;
    printf("%ld\n", last);
}

int main(void) {
    return serve();
}
