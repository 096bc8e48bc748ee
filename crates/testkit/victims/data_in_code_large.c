//#ExpectVerdict: review
//#ExpectReason: data-among-code
/* A table among code that is larger than is read from every byte at once, and that moved. */
#include <stdio.h>
#include <unistd.h>

extern const unsigned char table[] __attribute__((visibility("hidden")));

__asm__(".pushsection .text.with_data, \"ax\"\n"
        ".balign 64\n"
        "before: .cfi_startproc\nlea 1(%rdi), %eax\nret\n.cfi_endproc\n"
#if NEW
        ".skip 64, 0x90\n"
#endif
        ".balign 64\n"
        "table: .fill 300000, 4, 0x06060606\n"
        ".popsection\n");

__attribute__((noipa)) static int shown(int number) {
    return table[number & 1023] + (NEW ? number < -100 : 0);
}

int main(void) {
    for (int number = 0; number < 1000000; number++) {
        printf("%d\n", shown(number));
        sleep(1);
    }
    return 0;
}
