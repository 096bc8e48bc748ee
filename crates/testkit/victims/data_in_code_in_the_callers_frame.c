//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* A helper puts the address into the frame of its caller. */
#define EXTRA "enter: .cfi_startproc\nsub $24, %rsp\ncall put\nmov (%rsp), %rax\nadd $24, %rsp\njmp *%rax\n.cfi_endproc\n.balign 16\n" \
 "put: .cfi_startproc\nlea author+48(%rip), %rax\nmov %rax, 8(%rsp)\nret\n.cfi_endproc\n.balign 16\n"
#include "data_in_code_hidden.h"
static int run(int n) { return enter(n, 0); }
