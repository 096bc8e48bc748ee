//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* Undescribed code jumps into the midst of an instruction, where another one begins. */
#include <stdio.h>
#include <unistd.h>
extern const char author[] __attribute__((visibility("hidden")));
int once(int number) __attribute__((visibility("hidden")));
int twice(int number) __attribute__((visibility("hidden")));
#define ONCE "once: .cfi_startproc\nlea 1(%rdi), %eax\nret\ntest $0x90c3c031, %eax\n ret\n.cfi_endproc\n.balign 16\n"
#define TWICE "twice: .cfi_startproc\nlea (%rdi,%rdi), %eax\nret\ntest $0x90c3f889, %eax\nret\n.cfi_endproc\n.balign 16\n"
#if NEW
#define FUNCTIONS TWICE ONCE "jump = twice+5\n"
#else
#define FUNCTIONS ONCE TWICE "jump = once+5\n"
#endif
__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n" FUNCTIONS ".balign 64\n"
        "author: .ascii \"Odd bytes for x86_64, by <nobody@example.org>...\"\n"
        ".byte 0xe9\n.long jump - . - 4\n"
        ".popsection\n");
int main(void) {
    volatile int length = 48;
    int (*volatile hidden)(int) = (int (*)(int))(author + length);
    for (int number = 3; printf("%d %d %d\n", once(number), twice(number), hidden(number)) > 0; number++)
        sleep(1);
    return 1;
}
