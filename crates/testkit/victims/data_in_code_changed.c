//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* One byte of a table among the code is another: what reads it is the same. */
#include <stdio.h>
#include <unistd.h>

extern const unsigned char odd[] __attribute__((visibility("hidden")));

#if NEW
#define LAST "253"
#else
#define LAST "254"
#endif
__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n"
        "odd: .byte 6, 27, 97, 7, 98, 14, 22, 23, 30, 31, 39, 47, 55, 63, 96, " LAST "\n"
        ".asciz \"Odd bytes for x86_64, by <nobody@example.org>\"\n"
        ".popsection\n");

__attribute__((noipa)) int plain(int index) {
    return odd[index & 15];
}

int main(void) {
    for (int index = 0; printf("%d\n", plain(index)) > 0; index++)
        sleep(1);
    return 1;
}
