//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The address of a stretch that reads as data goes to another function, which jumps there. */
#include <stdio.h>
#include <unistd.h>
extern const char author[] __attribute__((visibility("hidden")));
int once(int number) __attribute__((visibility("hidden")));
int twice(int number) __attribute__((visibility("hidden")));
int enter(int number, const char *at) __attribute__((visibility("hidden")));
#ifndef ENTER
#define ENTER "enter: .cfi_startproc\nadd $48, %rsi\njmp *%rsi\n.cfi_endproc\n.balign 16\n"
#endif
#define ONCE "once: .cfi_startproc\nlea 1(%rdi), %eax\nret\n.cfi_endproc\n.balign 16\n"
#define TWICE "twice: .cfi_startproc\nlea (%rdi,%rdi), %eax\nret\n.cfi_endproc\n.balign 16\n"
#if NEW
#define FUNCTIONS TWICE ONCE "jump = twice\n"
#else
#define FUNCTIONS ONCE TWICE "jump = once\n"
#endif
__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n" FUNCTIONS ENTER ".balign 64\n"
        "author: .ascii \"Odd bytes for x86_64, by <nobody@example.org>...\"\n"
        ".byte 0xe9\n.long jump - . - 4\n"
        ".popsection\n");
__attribute__((noipa)) static int shown(int number) {
    return number + (NEW ? number < -100 : 0);
}
int main(void) {
    for (int number = 0; printf("%d %d %d\n", shown(once(number)), twice(number), enter(number, author)) > 0; number++)
        sleep(1);
    return 1;
}
