//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: constant-address
//#ExpectChanged: set_up
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* The address of a constant is compared by a function that gets it as an argument. */
#include <stdlib.h>

static const char empty[8] = "";
struct holder {
    char *text;
    int uses;
};

__attribute__((noinline)) void set_up(struct holder *holder) {
    holder->text = (char *)empty;
#if NEW
    holder->uses = 0;
#endif
}
__attribute__((noinline)) int differs(const char *a, const char *b, int uses) {
    if (uses > 3)
        return 1;
    return a != b;
}
__attribute__((noinline)) void release(struct holder *holder) {
    if (differs(holder->text, empty, holder->uses))
        free(holder->text);
}
