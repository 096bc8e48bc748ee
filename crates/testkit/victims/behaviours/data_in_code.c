//#ExpectVerdict: safe
//#Exchange: 3 | 39 | 41
/* A table and a text among the code, as hand-written assembly has them: no instructions,
 * described by nothing, read by code that stays and by code that changes. They move. */
#include "answers.h"

extern const unsigned char odd[] __attribute__((visibility("hidden")));
extern const char author[] __attribute__((visibility("hidden")));

__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n"
        ".type odd, @object\n"
        "odd: .byte 6, 27, 97, 7, 98, 14, 22, 23, 30, 31, 39, 47, 55, 63, 96, 254\n"
        "author: .asciz \"Odd bytes for x86_64, by <nobody@example.org>\"\n"
        ".balign 64\n"
        "nop\n"
        ".popsection\n");

ALONE static int plain(int index) {
    return odd[index & 15];
}

ALONE static int chosen(int index) {
#if NEW
    if (index < 0 || index > 15)
        return -1;
    return odd[index] + 2;
#else
    return odd[index & 15];
#endif
}

static void answer(const char *asked) {
    int index = atoi(asked);
    printf("%d\n", plain(index) + chosen(index) + (author[0] == 'O' ? 25 : 0));
}

int main(void) {
    return serve();
}
