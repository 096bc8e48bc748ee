//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: calculated-address
/* Code that stays adds to the address of a function how far another is, and gets that from a
 * third: the same number, which leads to another function than before. */
#define HIDDEN __attribute__((visibility("hidden")))
int from(int number) HIDDEN, one(int number) HIDDEN, two(int number) HIDDEN;
extern const int table[] HIDDEN;
#define CODE(name, body) name ": .cfi_startproc\n" body "\nret\n.cfi_endproc\n"
#define ONE CODE("one", "lea 1(%rdi), %eax")
#define TWO CODE("two", "lea 2(%rdi), %eax")
#if NEW
#define FUNCTIONS TWO ONE "first = two\n"
#else
#define FUNCTIONS ONE TWO "first = one\n"
#endif
__asm__(CODE("from", "mov %edi, %eax") FUNCTIONS
        ".section .rodata, \"a\"\n.balign 4\ntable: .long first - from\n.text\n");
typedef int (*function)(int);

__attribute__((noinline)) static int distance(int number) {
    return number > 1000 ? 0 : table[0];
}

int both(int number) {
    return one(number) * two(number + 5);
}

int use(int number) {
    return ((function)((const char *)from + distance(number)))(number);
}

int limited(int number) {
    return number > (NEW ? 900 : 1000) ? 0 : number;
}
