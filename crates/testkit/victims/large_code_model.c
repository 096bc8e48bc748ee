//#Kind: library
//#Flags: -mcmodel=large
//#ExpectVerdict: refused
//#ExpectReason: unproven-reference
/* Every address is a number added to that of the instruction, which the payload has elsewhere. */
__attribute__((noipa)) static int one(int number) { return number + 1; }
__attribute__((noipa)) static int two(int number) { return number + number; }

int use(int number) {
#if NEW
    if (number > 1000)
        return 0;
#endif
    return number & 1 ? one(number) : two(number);
}
