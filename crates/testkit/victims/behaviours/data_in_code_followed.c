//#ExpectVerdict: review
//#ExpectReason: data-among-code
//#Exchange: 3 | 261 | 263
//#Exchange: 4 | 70 | 72
/* Tables among hand-written code whose words would be distances into it if anybody jumped by them.
 * They are only read: at once, through a register that a callee gets, and one that is kept over a call. */
#include "answers.h"

extern const int strides[] __attribute__((visibility("hidden")));
extern const int masks[] __attribute__((visibility("hidden")));
int picked(const int *table, int index) __attribute__((visibility("hidden")));
int first(void) __attribute__((visibility("hidden")));

__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n"
        "picked: .cfi_startproc\nand $3, %esi\nmov (%rdi,%rsi,4), %eax\nret\n.cfi_endproc\n"
        ".balign 16\n"
        "first: .cfi_startproc\nlea strides(%rip), %r10\nmov (%r10), %eax\nret\n.cfi_endproc\n"
        ".balign 64\n"
        "strides: .long 64, -64, 128, 256, 0x06060606\n"
        "masks: .long 5, -32, 17, 4, 0x06060606\n"
        ".balign 64\n"
        "nop\n"
        ".popsection\n");

ALONE static int plain(int index) {
    const int *table = strides;
    __asm__("" : "+r"(table));
    int one = picked(table, index);
    return picked(masks, index) + picked(table, index) + one - one;
}

ALONE static int chosen(int index) {
#if NEW
    if (index < 0 || index > 15)
        return -1;
    return first() - 63 + 2;
#else
    return first() - 63 + 0 * index;
#endif
}

static void answer(const char *asked) {
    int index = atoi(asked);
    printf("%d\n", plain(index) + chosen(index));
}

int main(void) {
    return serve();
}
