//#ExpectVerdict: safe
//#Exchange: 3 | 6 | 7
/* Instructions that nobody executes hold a number where others have an operand, as the signature
 * of restartable sequences does (rseq(2)), in a function that changes and in one that stays. */
#include "answers.h"

#define MARK __asm__ volatile("jmp 1f\n.byte 0x0f, 0xb9, 0x3d\n.long 0x53053053\n1:")

ALONE static int twice(int number) {
    MARK;
#if NEW
    return number * 2 + 1;
#else
    return number * 2;
#endif
}

ALONE static int same(int number) {
    MARK;
    return number;
}

static void answer(const char *asked) {
    printf("%d\n", twice(same(atoi(asked))));
}

int main(void) {
    return serve();
}
