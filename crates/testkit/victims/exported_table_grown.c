//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: not-validated
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: clang -O2
/* An exported table grows; a program may have a copy of it, of the old size. */
#include <stddef.h>
int table[NEW ? 6 : 4] = {1, 2, 3, 4};
int other = 7;
__attribute__((noinline)) int sum(void) {
    int s = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        s += table[i];
    return s;
}
__attribute__((noinline)) int get(void) { return other; }
