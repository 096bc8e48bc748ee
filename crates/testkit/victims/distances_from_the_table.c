//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: relative-data
/* Each number says how far its function is from the start of the table. */
#include "distances.h"
TABLE(".long one - table, two - table\n");

int use(int number) {
    return ((function)((const char *)table + table[number & 1]))(LIMITED(number)) + 1;
}
