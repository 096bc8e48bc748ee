//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: relative-data
/* Each number says how far its function is from the global offset table. */
#include "distances.h"
TABLE(".quad one@GOTOFF, two@GOTOFF\n");

int use(int number) {
    const char *from;
    __asm__("lea _GLOBAL_OFFSET_TABLE_(%%rip), %0" : "=r"(from));
    return ((function)(from + ((const long *)table)[number & 1]))(LIMITED(number)) + 1;
}
