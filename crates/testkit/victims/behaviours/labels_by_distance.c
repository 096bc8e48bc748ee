//#ExpectVerdict: safe
//#Exchange: 5 | 7 25 | 9 25
/* A table of distances between labels of one function, as printf of the C library has it,
 * beside a function that changed. */
#include "answers.h"

ALONE static int shown(int number) {
    return number + (NEW ? 4 : 2);
}

ALONE static int steps(const char *program, int number) {
    static const int at[] = {&&add - &&add, &&subtract - &&add, &&multiply - &&add, &&out - &&add};
    int result = number;
#define GO goto *(&&add + at[*program++ & 3])
    GO;
add:
    result += number;
    GO;
subtract:
    result -= number;
    GO;
multiply:
    result *= number;
    GO;
out:
    return result;
}

static void answer(const char *asked) {
    int number = atoi(asked);
    printf("%d %d\n", shown(number), steps("\0\1\2\3", number));
}

int main(void) {
    return serve();
}
