//#ExpectVerdict: review
//#ExpectReason: constant-address
/* A function that did not change is reached by a short jump from one that did, and keeps the
 * address of a constant, by which others know what they have. */
#include <stdio.h>
#include <unistd.h>

struct kind { int numbers[6]; };
static const struct kind red = {{3, 1, 4, 1, 5, 9}};
static struct object { const struct kind *kind; int number; } objects[64];

#ifdef __clang__
#define ALONE __attribute__((noinline))
#else
#define ALONE __attribute__((noipa))
#endif

/* Between them lies nothing: the jump is short. */
__asm__(".text\n"
        ".p2align 4\n"
        ".type checked, @function\n"
        "checked: .cfi_startproc\n"
#if NEW
        "  cmp $15, %esi\n"
#else
        "  cmp $19, %esi\n"
#endif
        "  jb make\n"
        "  mov $-1, %eax\n"
        "  ret\n"
        "  .cfi_endproc\n"
        ".size checked, . - checked\n"
        ".type make, @function\n"
        "make: .cfi_startproc\n"
        "  lea red_numbers(%rip), %rax\n"
        "  mov %rax, (%rdi)\n"
        "  mov %esi, 8(%rdi)\n"
        "  mov (%rax), %eax\n"
        "  ret\n"
        "  .cfi_endproc\n"
        ".size make, . - make\n"
        ".section .rodata\n"
        ".p2align 3\n"
        "red_numbers: .long 3, 1, 4, 1, 5, 9\n"
        ".text\n");

extern int checked(struct object *object, unsigned number) __attribute__((visibility("hidden")));
extern int make(struct object *object, unsigned number) __attribute__((visibility("hidden")));

ALONE static int is_same(const struct object *a, const struct object *b) {
    return a->kind == b->kind;
}

int main(void) {
    make(&objects[0], red.numbers[0]);
    for (unsigned i = 0;; i++) {
        struct object *object = &objects[i & 63];
        printf("%d %d\n", checked(object, i & 31), is_same(object, &objects[0]));
        usleep(1000);
    }
}
