//#ExpectVerdict: review
//#ExpectReason: callback-by-place
//#Flags: -s
/* Changed code hands out two functions that changed, too, in places that tell which is which;
 * what is in a register since before the call in front of them was exchanged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALONE __attribute__((noipa))
#define INLINE static inline __attribute__((always_inline))

static int (*held[3])(int);
static volatile int mode = 1;

/* Long enough that each is known for a version of itself. */
INLINE int more_7(int number) {
    while (number > 1000000)
        number -= number % 3 ? number / 7 : number ^ 7 << 3;
    if (number > 100000)
        printf("%d has too many digits, and %d is left of it\n", number, number % 7);
    return number < -1000000 ? number % 7 * 17 + (number ^ 7) : number;
}

INLINE int more_11(int number) {
    char digits[16];
    snprintf(digits, sizeof digits, "%d", number);
    if (strspn(digits, "-123456789") < strlen(digits) && number > 1000000)
        fprintf(stderr, "%s has a zero, %d is its half\n", digits, number / 2);
    return strlen(digits) > 8 && strchr(digits, '9') ? (int)strtol(digits + 1, NULL, 8) : number;
}

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
