//#ExpectVerdict: refused
//#ExpectReason: unproven-reference
/* Hand-written code that changed learns from a call where it is, and reads a table that lies so
 * far behind it. The payload has no table there. */
#include <stdio.h>
#include <unistd.h>

#if NEW
#define MOST "5"
#else
#define MOST "6"
#endif

__asm__(".text\n"
        ".p2align 4\n"
        ".type look, @function\n"
        "look: .cfi_startproc\n"
        "  cmp $" MOST ", %edi\n"
        "  ja 2f\n"
        "  call 1f\n"
        "1: pop %rax\n"
        "  movzbl 3f-1b(%rax,%rdi), %eax\n"
        "  ret\n"
        "2: xor %eax, %eax\n"
        "  ret\n"
        "  .cfi_endproc\n"
        ".size look, . - look\n"
        "3: .byte 6, 14, 22, 30, 39, 47, 55, 63\n"
        ".p2align 4\n");

extern int look(unsigned long) __attribute__((visibility("hidden")));

int main(void) {
    for (unsigned i = 0;; i++) {
        printf("%d\n", look(i & 7));
        usleep(1000);
    }
}
