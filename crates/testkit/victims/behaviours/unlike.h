/* Two functions that no other is taken for: each is known for a version of itself. */
#ifndef UNLIKE_H
#define UNLIKE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

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

#endif
