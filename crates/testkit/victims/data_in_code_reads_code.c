//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* Undescribed code reads a number inside a described function, which reads as instructions by chance. */
#include <stdio.h>
#include <unistd.h>
extern const char author[] __attribute__((visibility("hidden")));
int once(int number) __attribute__((visibility("hidden")));
int twice(int number) __attribute__((visibility("hidden")));
#define ONCE "once: .cfi_startproc\nlea 1(%rdi), %eax\nret\none: .long 0x50505051\n.byte 0xc3\n.cfi_endproc\n.balign 16\n"
#define TWICE "twice: .cfi_startproc\nlea (%rdi,%rdi), %eax\nret\ntwo: .long 0x50505052\n.byte 0xc3\n.cfi_endproc\n.balign 16\n"
#if NEW
#define FUNCTIONS TWICE ONCE "jump = two\n"
#else
#define FUNCTIONS ONCE TWICE "jump = one\n"
#endif
__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n" FUNCTIONS ".balign 64\n"
        "author: .ascii \"Odd bytes for x86_64, by <nobody@example.org>...\"\n"
        "mov jump(%rip), %eax\nret\n"
        ".popsection\n");
int main(void) {
    volatile int length = 48;
    int (*volatile hidden)(int) = (int (*)(int))(author + length);
    for (int number = 0; printf("%d %d %d\n", once(number), twice(number), hidden(number)) > 0; number++)
        sleep(1);
    return 1;
}
