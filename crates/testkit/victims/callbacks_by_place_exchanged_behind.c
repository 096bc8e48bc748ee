//#ExpectVerdict: review
//#ExpectReason: callback-by-place
//#Flags: -s
/* The same, where they change places after they were handed out. */
#define BEGIN                                   \
    attach(1, thrice, 30);                      \
    attach(2, next, 40);                        \
    __asm__ volatile("" ::: "memory");          \
    int (*one)(int) = held[NEW ? 2 : 1];        \
    held[NEW ? 2 : 1] = held[1];                \
    held[1] = one;
#include "callbacks_by_place.c"
