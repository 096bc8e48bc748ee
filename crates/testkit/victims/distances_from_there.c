//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: relative-data
/* Each number says how far its function is from itself. */
#include "distances.h"
TABLE(".long one - ., two - .\n");

int use(int number) {
    const int *at = &table[number & 1];
    return ((function)((const char *)at + *at))(LIMITED(number));
}
