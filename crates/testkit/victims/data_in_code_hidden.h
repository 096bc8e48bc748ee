/* Among what reads like data is a jump, to which each victim comes in its own way. Its bytes
 * are the same in both versions and it leads to another function, because two changed places. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#ifndef EXTRA
#define EXTRA ""
#endif
#ifndef BEFORE_ASM
#define BEFORE_ASM ""
#endif
#ifndef AUTHOR
#define AUTHOR "author: .ascii \"Odd bytes for x86_64, by <nobody@example.org>...\"\n.byte 0xe9\n.long jump - . - 4\n"
#endif
typedef int (*fn)(int);
extern const char author[] __attribute__((visibility("hidden")));
int once(int number) __attribute__((visibility("hidden")));
int twice(int number) __attribute__((visibility("hidden")));
int enter(int number, const char *at) __attribute__((visibility("hidden")));
#define ONCE "once: .cfi_startproc\nlea 1(%rdi), %eax\nret\n.cfi_endproc\n.balign 16\n"
#define TWICE "twice: .cfi_startproc\nlea (%rdi,%rdi), %eax\nret\n.cfi_endproc\n.balign 16\n"
#if NEW
#define FUNCTIONS TWICE ONCE "jump = twice\n"
#else
#define FUNCTIONS ONCE TWICE "jump = once\n"
#endif
__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n" FUNCTIONS EXTRA ".balign 64\n" BEFORE_ASM
        AUTHOR ".popsection\n");
__attribute__((noipa)) static int shown(int number) {
    return number + (NEW ? number < -100 : 0);
}
#define HIDDEN ((fn)(author + 48))
static int run(int number);
int main(void) {
    for (int number = 1; printf("%d %d %d\n", shown(once(number)), twice(number), run(number)) > 0; number++)
        sleep(1);
    return 1;
}
