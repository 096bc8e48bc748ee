//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* Among what reads like data is a jump, which nothing but a calculated address leads to.
 * Its bytes are the same and it leads to another function, because two changed places. */
#include <stdio.h>
#include <unistd.h>

extern const char author[] __attribute__((visibility("hidden")));
int once(int number) __attribute__((visibility("hidden")));
int twice(int number) __attribute__((visibility("hidden")));

#ifndef ONCE_HOLDS
#define ONCE_HOLDS ""
#define TWICE_HOLDS ""
#define IN_ONCE "once"
#define IN_TWICE "twice"
#endif
#ifndef HIDDEN
#define HIDDEN ".byte 0xe9\n.long jump - . - 4\n"
#endif

#define ONCE "once: .cfi_startproc\nlea 1(%rdi), %eax\nret\n" ONCE_HOLDS ".cfi_endproc\n.balign 16\n"
#define TWICE "twice: .cfi_startproc\nlea (%rdi,%rdi), %eax\nret\n" TWICE_HOLDS ".cfi_endproc\n.balign 16\n"
#if NEW
#define FUNCTIONS TWICE ONCE "jump = " IN_TWICE "\n"
#else
#define FUNCTIONS ONCE TWICE "jump = " IN_ONCE "\n"
#endif
__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n" FUNCTIONS ".balign 64\n"
        "author: .ascii \"Odd bytes for x86_64, by <nobody@example.org>...\"\n"
        HIDDEN ".popsection\n");

__attribute__((noipa)) static int shown(int number) {
    return number + (NEW ? number < -100 : 0);
}
int main(void) {
    volatile int length = 48;
    int (*volatile hidden)(int) = (int (*)(int))(author + length);
    for (int number = 0; printf("%d %d %d\n", shown(once(number)), twice(number), hidden(number)) > 0; number++)
        sleep(1);
    return 1;
}
