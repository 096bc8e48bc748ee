//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: relative-data
/* Code that stays follows them, wherever the table is that it gets. */
#include "distances.h"
TABLE(".long one - ., two - .\n");

__attribute__((noipa)) static int follow(const int *at, int number) {
    return ((function)((const char *)at + *at))(number);
}

int use(int number) {
    return follow(&table[number & 1], LIMITED(number));
}
