//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The same by way of a register that a helper leaves behind. */
#define EXTRA "enter: .cfi_startproc\ncall where\nadd $48, %r11\njmp *%r11\n.cfi_endproc\n.balign 16\n" \
              "where: .cfi_startproc\nlea author(%rip), %r11\nret\n.cfi_endproc\n.balign 16\n"
#include "data_in_code_passed.c"
