//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The same by way of a variable. */
#define EXTRA "enter: .cfi_startproc\nadd $48, %rsi\nmov %rsi, kept(%rip)\njmp *kept(%rip)\n.cfi_endproc\n.balign 16\n.local kept\n.comm kept, 8\n"
#include "data_in_code_passed.c"
