//#ExpectVerdict: review
//#ExpectReason: callback-handed-otherwise
/* Two functions that changed are attached to the kinds of each other. Code that stays calls
 * both, so which is which is clear; what old code attached stays as it was. */
#include <stdio.h>
#include <unistd.h>

#define ALONE __attribute__((noipa))

static int (*held[4])(int);

ALONE static int thrice(int number) {
    return number * 3 + (NEW ? number < -100 : 0);
}

ALONE static int next(int number) {
    return number + 1 + (NEW ? number < -200 : 0);
}

#ifndef STORES
ALONE static void attach(int kind, int (*callback)(int)) {
    held[kind] = callback;
}
#endif

#ifndef BEGIN
#if NEW
#define BEGIN attach(2, thrice); attach(1, next);
#else
#define BEGIN attach(1, thrice); attach(2, next);
#endif
#endif

ALONE static int begin(int number) {
    BEGIN
    return number;
}

int main(void) {
    for (int number = 0; ; number++) {
        if (!held[1])
            number = begin(number);
        if (number > 1000 && printf("%d %d\n", thrice(number), next(number)) < 0)
            break;
        if (printf("%d %d\n", held[1](number), held[3] ? held[3](number) : 0) < 0)
            break;
        sleep(1);
    }
    return 1;
}
