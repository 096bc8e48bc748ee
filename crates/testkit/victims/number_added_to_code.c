//#ExpectVerdict: refused
//#ExpectReason: unproven-reference
/* Hand-written code finds a table by a number that it adds to the address of another function,
 * and what lies between them grew. */
#include <stdio.h>
#include <unistd.h>

#if NEW
#define MORE "  add $1, %eax\n  xor %edi, %eax\n  add $1, %eax\n  xor %edi, %eax\n  add $1, %eax\n  xor %edi, %eax\n"
#else
#define MORE "  add $1, %eax\n"
#endif

__asm__(".text\n"
        ".p2align 4\n"
        ".type anchor, @function\n"
        "anchor: .cfi_startproc\n"
        "  lea 1(%rdi,%rdi,2), %eax\n"
        "  ret\n"
        "  .cfi_endproc\n"
        ".size anchor, . - anchor\n"
        ".p2align 4\n"
        ".type between, @function\n"
        "between: .cfi_startproc\n"
        "  lea 3(%rdi), %eax\n"
        "  imul %edi, %eax\n" MORE
        "  ret\n"
        "  .cfi_endproc\n"
        ".size between, . - between\n"
        ".p2align 4\n"
        "1: .byte 6, 14, 22, 30, 39, 47, 55, 63\n"
        ".p2align 4\n"
        ".type look, @function\n"
        "look: .cfi_startproc\n"
        "  lea anchor(%rip), %rax\n"
        "  add $(1b - anchor), %rax\n"
        "  movzbl (%rax,%rdi), %eax\n"
        "  ret\n"
        "  .cfi_endproc\n"
        ".size look, . - look\n"
        ".p2align 4\n");

extern int look(unsigned long) __attribute__((visibility("hidden")));
extern int between(int) __attribute__((visibility("hidden")));
extern int anchor(int) __attribute__((visibility("hidden")));

int main(void) {
    for (unsigned i = 0;; i++) {
        printf("%d %d %d\n", look(i & 7), between((int)i), anchor((int)i));
        usleep(1000);
    }
}
