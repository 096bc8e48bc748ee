//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: relative-data
/* The same, where nothing but the table differs in the code that uses it. */
#include "distances.h"
TABLE(".long one - ., two - .\n");

int use(int number) {
    const int *at = &table[number & 1];
    return ((function)((const char *)at + *at))(number);
}
