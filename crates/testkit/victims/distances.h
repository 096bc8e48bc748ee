/* Tables of distances instead of addresses: no relocation says that they lead to functions.
 * What an update adds in between moves one of them. */
#define HIDDEN __attribute__((visibility("hidden")))
int one(int number) HIDDEN, two(int number) HIDDEN;
#define CODE(name, body) \
    ".text\n.type " name ", @function\n" name ": .cfi_startproc\n" body "\nret\n.cfi_endproc\n.size " name ", . - " name "\n"
#if NEW
__asm__(CODE("two", "lea (%rdi,%rdi), %eax") CODE("grown", ".fill 48, 1, 0x90") CODE("one", "lea 1(%rdi), %eax"));
#else
__asm__(CODE("two", "lea (%rdi,%rdi), %eax") CODE("one", "lea 1(%rdi), %eax"));
#endif
#ifndef SECTION
#define SECTION ".section .rodata, \"a\""
#endif
#define TABLE(numbers) \
    __asm__(".pushsection .data\n.balign 64\nanchor: .quad 7\nvariables: .long 3, 4\n.popsection\n" \
            SECTION "\n.balign 8\ntable: " numbers ".balign 8\n.text\n")
extern const int table[] HIDDEN;
typedef int (*function)(int);
/* A limit, in a function that uses the table. */
#define LIMITED(number) ((number) > (NEW ? 900 : 1000) ? 0 : (number))
