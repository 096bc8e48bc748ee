//#ExpectVerdict: safe
//#Exchange: 3 | 9 | 10
/* The detour's five bytes lie in two pages. */
#include "answers.h"

long straddled(long number);
__asm__(".pushsection .text.straddled, \"ax\", @progbits\n"
        ".balign 4096\n"
        ".skip 4093, 0xcc\n"
        ".type straddled, @function\n"
        "straddled:\n"
        ".cfi_startproc\n"
#if NEW
        "leaq 1(%rdi,%rdi,2), %rax\n"
#else
        "leaq (%rdi,%rdi,2), %rax\n"
        "nop\n"
#endif
        "nop\n"
        "nop\n"
        "ret\n"
        ".cfi_endproc\n"
        ".size straddled, . - straddled\n"
        ".popsection\n");

static void answer(const char *asked) {
    printf("%ld\n", straddled(atol(asked)));
}

int main(void) {
    return serve();
}
