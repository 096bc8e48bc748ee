//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The same by way of the stack, from which it comes into another register. */
#define EXTRA "enter: .cfi_startproc\nadd $48, %rsi\npush %rsi\nxor %esi, %esi\npop %rax\njmp *%rax\n.cfi_endproc\n.balign 16\n"
#include "data_in_code_passed.c"
