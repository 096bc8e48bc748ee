//#ExpectVerdict: review
//#ExpectReason: callback-by-place
//#Flags: -s
/* The same, where they lie in a table on the stack, and a loop hands them out the other way round. */
#define BEGIN                                           \
    int (*volatile table[2])(int);                      \
    table[0] = thrice;                                  \
    table[1] = next;                                    \
    fflush(stdout);                                     \
    for (int i = 0; i < 2; i++)                         \
        attach(NEW ? 2 - i : 1 + i, table[i], i);
#include "callbacks_by_place.c"
