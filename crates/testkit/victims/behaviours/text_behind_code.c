//#ExpectVerdict: safe
//#Exchange: 5 | 21 22 | 0 22
/* Hand-written code without unwind information, with a text right behind it, as generators of
 * assembly leave it there: what calls and jumps to that code is as it was. */
#include "answers.h"

__asm__(".text\n"
        ".p2align 4\n"
        "scramble:\n"
        "  lea 1(%rdi,%rdi,2), %eax\n"
        "  test %edi, %edi\n"
        "  je 1f\n"
        "  xor %edi, %eax\n"
        "1: rep ret\n"
        ".ascii \"Scramble, written by hand\\n\"\n"
        ".byte 0x06, 0x0e, 0x16\n"
        ".p2align 4\n");

extern unsigned scramble(unsigned value) __attribute__((visibility("hidden")));

ALONE static unsigned called(unsigned value) {
    return scramble(value) + 1;
}

ALONE static unsigned checked(unsigned value) {
    return value >= (NEW ? 5 : 6) ? 0 : scramble(value);
}

static void answer(const char *asked) {
    unsigned number = (unsigned)atoi(asked);
    printf("%u %u\n", checked(number), called(number));
}

int main(void) {
    return serve();
}
