//#Kind: library
//#ExpectVerdict: unchanged
//#Flags: -Wl,--build-id=none
/* Only what nobody loads differs, beside code that no decoder understands. */
__asm__(".pushsection .not_loaded\n"
#if NEW
        ".string \"new\"\n"
#else
        ".string \"old\"\n"
#endif
        ".popsection");

int known(int number) {
    return number * 3;
}

__asm__(".globl unknown\n"
        ".type unknown, @function\n"
        "unknown: .cfi_startproc\n"
        ".byte 0x06, 0x07, 0x0e\n"
        "ret\n"
        ".cfi_endproc\n"
        ".size unknown, .-unknown");
