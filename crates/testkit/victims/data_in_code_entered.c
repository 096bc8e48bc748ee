//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* Code that changed begins to jump into a stretch that makes sense as code in the new version only. */
#include <stdio.h>
#include <unistd.h>
extern const char author[] __attribute__((visibility("hidden")));
int once(int number) __attribute__((visibility("hidden")));
int twice(int number) __attribute__((visibility("hidden")));
#if NEW
#define FUNCTIONS "once: .cfi_startproc\nlea 1(%rdi), %eax\nret\n.cfi_endproc\nnop\nnop\nnop\nnop\n twice: .cfi_startproc\nlea (%rdi,%rdi), %eax\nret\n.cfi_endproc\n.balign 64\njump = twice\n"
#else
#define FUNCTIONS "twice: .cfi_startproc\nlea (%rdi,%rdi), %eax\nret\n.cfi_endproc\nnop\nnop\nnop\n once: .cfi_startproc\nlea 1(%rdi), %eax\nret\n.cfi_endproc\n.balign 64\njump = once+1\n"
#endif
__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n" FUNCTIONS
        "author: .ascii \"Odd bytes for x86_64, by <nobody@example.org>...\"\n"
        ".byte 0xe9\n.long jump - . - 4\n"
        ".popsection\n");
__attribute__((noipa)) static int call(int number) {
#if NEW
    int (*volatile hidden)(int) = (int (*)(int))(author + (number | 48));
    return hidden(number);
#else
    return number ^ author[number & 31];
#endif
}
int main(void) {
    for (int number = 0; printf("%d %d %d %c\n", once(number), twice(number), call(number & 16), author[number & 31]) > 0; number++)
        sleep(1);
    return 1;
}
