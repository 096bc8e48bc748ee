//#ExpectVerdict: refused
//#ExpectRefusal: role-unproven
/* A text among the code that changed is reached from the address of the function before it. */
#include <stdio.h>
#include <unistd.h>
extern const char before[] __attribute__((visibility("hidden")));
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
    const char *t = before; __asm__ volatile("" : "+r"(t));
    for (int number = 0; printf("%d %.35s\n", number, t + 64) > 0; number++)
        sleep(1);
    return 1;
}
