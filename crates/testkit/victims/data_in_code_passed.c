//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The address of a stretch that reads as data goes to another function, which jumps there. */
#ifndef EXTRA
#define EXTRA "enter: .cfi_startproc\nadd $48, %rsi\njmp *%rsi\n.cfi_endproc\n.balign 16\n"
#endif
#include "data_in_code_hidden.h"
static int run(int n) { return enter(n, author); }
