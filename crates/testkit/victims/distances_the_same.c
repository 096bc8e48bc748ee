//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: relative-data
/* The table is the same, byte for byte, and its functions changed places. */
#define HIDDEN __attribute__((visibility("hidden")))
int one(int number) HIDDEN, two(int number) HIDDEN;
extern const int table[] HIDDEN;
#define CODE(name, body) name ": .cfi_startproc\n" body "\nret\n.cfi_endproc\n"
#define ONE CODE("one", "lea 1(%rdi), %eax")
#define TWO CODE("two", "lea 2(%rdi), %eax")
#if NEW
#define FUNCTIONS TWO ONE "first = two\nsecond = one\n"
#else
#define FUNCTIONS ONE TWO "first = one\nsecond = two\n"
#endif
__asm__(FUNCTIONS ".section .rodata, \"a\"\n.balign 4\ntable: .long first - ., second - .\n.text\n");
typedef int (*function)(int);

int both(int number) {
    return one(number) * two(number + 5);
}

int use(int number) {
    const int *at = &table[number & 1];
    return ((function)((const char *)at + *at))(number);
}

int limited(int number) {
    return number > (NEW ? 900 : 1000) ? 0 : number;
}
