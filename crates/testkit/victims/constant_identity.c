//#ExpectVerdict: review
//#ExpectChanged: release
/* The address of a constant says "nothing to free": a copy of it at another address must not. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct holder {
    char *text;
    int uses;
};

static const char empty[8] = "";

__attribute__((noinline, noipa)) void release(struct holder *holder) {
    if (holder->text != empty)
        free(holder->text);
#if NEW
    holder->text = (char *)empty;
    holder->uses = 0;
#endif
}

int main(void) {
    struct holder holder = {(char *)empty, 0};
    while (printf("%d\n", holder.uses++) > 0) {
        release(&holder);
        sleep(1);
    }
    return 1;
}
