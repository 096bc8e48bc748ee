//#ExpectVerdict: review
//#ExpectReason: callback-by-place
//#Flags: -s
/* Changed code hands out two functions that changed, too, in places that tell which is which;
 * what is in a register since before the call in front of them was exchanged. */
#include "behaviours/unlike.h"
#include <unistd.h>

#define ALONE __attribute__((noipa))

static int (*held[3])(int);
static volatile int mode = 1;

ALONE static int thrice(int number) {
    return more_7(number) * 3 + (NEW ? number < -100 : 0);
}

ALONE static int next(int number) {
    return more_11(number) + 1 + (NEW ? number < -200 : 0);
}

ALONE static void attach(int kind, int (*callback)(int), int line) {
    held[kind] = callback;
    if (line > 1000 || mode > 10)
        abort();
}

#ifndef BEGIN
#define BEGIN                                   \
    int a = NEW ? 2 : 1, b = NEW ? 1 : 2;       \
    __asm__ volatile("" : "+r"(a), "+r"(b));    \
    fflush(stdout);                             \
    attach(a, thrice, 10);                      \
    attach(b, next, 20);
#endif

ALONE static int begin(int number) {
    BEGIN
    return number;
}

int main(void) {
    for (int number = 0; number < 1000000; number++) {
        if (!held[1])
            begin(number);
        printf("%d %d\n", held[1](number), held[2] ? held[2](number) : 0);
        sleep(1);
    }
    return 0;
}
