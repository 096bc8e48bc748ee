//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: unproven-reference
/* Replaced code adds a number to the address of a function that stays where it is. */
#include "distances.h"
TABLE(".long one - two, 0\n");

__attribute__((noipa)) static int distance(int number) {
    return number & 1 ? 0 : table[number & 1];
}

int use(int number) {
    return ((function)((const char *)two + distance(number)))(LIMITED(number));
}
