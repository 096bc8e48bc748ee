//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: relative-data
/* The numbers lead to variables. */
#include "distances.h"
TABLE(".long anchor - ., variables - .\n");

extern int variables[] HIDDEN;

int count(void) {
    return variables[0]++;
}

int use(int number) {
    const int *at = &table[number & 1];
    return *(int *)((const char *)at + *at) + LIMITED(number) + one(number);
}
