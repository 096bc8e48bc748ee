//#ExpectVerdict: safe
//#Exchange: 5 | 5 | 6
/* A symbol of glibc's that is for glibc alone (version GLIBC_PRIVATE). */
#include "answers.h"

int __close_nocancel(int descriptor);

ALONE static int changed(int number) {
#if NEW
    return number + (__close_nocancel(-1) < 0 ? 1 : 2);
#else
    return number + (__close_nocancel(-1) < 0 ? 0 : 2);
#endif
}

static void answer(const char *asked) {
    printf("%d\n", changed(atoi(asked)));
}

int main(void) {
    return serve();
}
