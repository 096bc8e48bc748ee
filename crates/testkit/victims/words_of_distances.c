//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: data-changed
/* A number in a table of pointers says how far a function is, which is not as far in the
 * process: it must not be written there. */
#define SECTION ".section .data.rel.ro, \"aw\""
#include "distances.h"
TABLE(".quad one\n.quad one - .\n.quad two\n.quad two - .\n");

int use(int number) {
    const long *at = (const long *)table + (number & 1) * 2 + 1;
    return ((function)((const char *)at + *at))(number) + ((const function *)table)[(number & 1) * 2](number);
}
