//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The low byte of the address is replaced. */
#define EXTRA "enter: .cfi_startproc\nlea author(%rip), %rax\nmov $0x30, %al\njmp *%rax\n.cfi_endproc\n.balign 256\n"
#define BEFORE_ASM ".balign 256\n"
#include "data_in_code_hidden.h"
static int run(int n) { return enter(n, 0); }
