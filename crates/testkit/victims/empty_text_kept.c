//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: set_up
/* An empty text lies at the end of another one, where linkers put it: it is no object that
 * anybody knows by its address. */
#include <stdio.h>

struct holder {
    const char *name;
    long number;
    const char *unit;
};

void set_up(struct holder *holder, long number) {
#if NEW
    if (number < 0)
        number = 0;
#endif
    holder->name = "";
    holder->unit = "an ordinary unit";
    holder->number = number;
}

void tell(const struct holder *holder) {
    printf("%s: %ld %s\n", holder->name, holder->number, holder->unit);
}
