//#ExpectVerdict: review
//#ExpectReason: callback-by-place
//#Flags: -s
/* The same, where the condition for one place or the other was turned. */
#if NEW
#define JUMP "je"
#else
#define JUMP "jne"
#endif
#define BEGIN                                                                        \
    fflush(stdout);                                                                  \
    __asm__ goto("cmpl $1, %0\n\t" JUMP " %l1" : : "m"(mode) : "cc" : other);       \
    attach(1, thrice, 10);                                                           \
    return number;                                                                   \
other:                                                                               \
    attach(1, next, 20);
#include "callbacks_by_place.c"
