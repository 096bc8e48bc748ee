//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The same by a return. */
#define EXTRA "enter: .cfi_startproc\nadd $48, %rsi\npush %rsi\nret\n.cfi_endproc\n.balign 16\n"
#include "data_in_code_passed.c"
