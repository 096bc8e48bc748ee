//#ExpectVerdict: safe
//#Exchange: 5 | 6 | 10
/* Behind a text among the code a jump that nothing describes, which leads elsewhere now:
 * where code that is understood leads there, it is code. */
#include "answers.h"

int hidden(int number) __attribute__((visibility("hidden")));

__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n"
        "once: .cfi_startproc\nlea 1(%rdi), %eax\nret\n.cfi_endproc\n.balign 16\n"
        "twice: .cfi_startproc\nlea (%rdi,%rdi), %eax\nret\n.cfi_endproc\n.balign 64\n"
#if NEW
        "jump = twice\n"
#else
        "jump = once\n"
#endif
        "author: .ascii \"Odd bytes for x86_64, by <nobody@example.org>...\"\n"
        "hidden: .byte 0xe9\n.long jump - . - 4\n.balign 16\n"
        ".popsection\n");

static void answer(const char *asked) {
    printf("%d\n", hidden(atoi(asked)));
}

int main(void) {
    return serve();
}
