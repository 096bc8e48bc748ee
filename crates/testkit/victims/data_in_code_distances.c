//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* Words of a table among the code are distances: equal, and to another function. */
#include <stdio.h>
#include <unistd.h>
extern const int table[] __attribute__((visibility("hidden")));
int once(int number) __attribute__((visibility("hidden")));
int twice(int number) __attribute__((visibility("hidden")));
#define ONCE "once: .cfi_startproc\nlea 1(%rdi), %eax\nret\n.cfi_endproc\n.balign 16\n"
#define TWICE "twice: .cfi_startproc\nlea (%rdi,%rdi), %eax\nret\n.cfi_endproc\n.balign 16\n"
#if NEW
#define FUNCTIONS TWICE ONCE "jump = twice\n"
#else
#define FUNCTIONS ONCE TWICE "jump = once\n"
#endif
__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n" FUNCTIONS ".balign 64\n"
        "table: .long jump - table, jump - table, 0x06060606, 0x06060606\n"
        ".popsection\n");
__attribute__((noipa)) static int shown(int number) {
    return number + (NEW ? number < -100 : 0);
}
int main(void) {
    for (int number = 0; ; number++) {
        int (*f)(int) = (int (*)(int))((const char *)table + ((const volatile int *)table)[number & 1]);
        if (printf("%d %d %d\n", shown(once(number)), twice(number), f(number)) < 0) break;
        sleep(1);
    }
    return 1;
}
