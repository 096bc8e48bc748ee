//#ExpectVerdict: review
//#Flags: -fno-toplevel-reorder
//#Exchange: 3 | 1 of 8 | 1 of 8, new
//#Exchange: 19 | 0 of 8 | 0 of 8, new
/* New code walks a table of constants up to its end, which is where the unwind table begins:
 * both come from the payload, or the walk would never end. */
#include "answers.h"

extern const char digits[] __attribute__((visibility("hidden")));
extern const char digits_end[] __attribute__((visibility("hidden")));

ALONE static void answer(const char *asked) {
    int found = 0, all = 0;
    const char *at = digits, *end = digits_end;
    __asm__("" : "+r"(at), "+r"(end));
    for (; at != end; at++, all++)
        found += *at == atoi(asked);
    printf("%d of %d%s\n", found, all, NEW ? ", new" : "");
}

int main(void) {
    return serve();
}

/* Last of all, so that nothing follows it in its section. */
__asm__(".section .rodata.tail,\"a\",@progbits\n"
        "digits: .byte 1, 2, 3, 4, 5, 6, 7, 8\n.balign 4\n"
        "digits_end:\n"
        ".previous\n");
