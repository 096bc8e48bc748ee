//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* A text among the code that changed reads as instructions by chance: a detour would be written into it. */
#include <stdio.h>
#include <unistd.h>
#ifndef LETTERS
extern const char letters[] __attribute__((visibility("hidden")));
#define LETTERS letters
#endif
__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n"
        "before: .cfi_startproc\nlea 1(%rdi), %eax\nret\n.cfi_endproc\n.balign 64\n"
#if NEW
        "letters: .ascii \"PQRSTUVWXYZPQRSTUVWXYZPQRSTUVWXYZQQ\"\n.byte 0xc3\n"
#else
        "letters: .ascii \"PQRSTUVWXYZPQRSTUVWXYZPQRSTUVWXYZPP\"\n.byte 0xc3\n"
#endif
        ".balign 64\n"
        "after: .cfi_startproc\nlea 1(%rdi), %eax\nret\n.cfi_endproc\n.balign 64\n"
        ".popsection\n");
int main(void) {
    for (int number = 0; printf("%d %.35s\n", number, LETTERS) > 0; number++)
        sleep(1);
    return 1;
}
