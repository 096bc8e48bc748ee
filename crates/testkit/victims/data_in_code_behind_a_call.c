//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* The function before ends with a call, and runs on into the stretch. */
#define AUTHOR ".byte 0xe9\n.long jump - . - 4\nauthor: .ascii \"Odd bytes for x86_64, by <nobody@example.org>...\"\n"
#define BEFORE_ASM "enter: .cfi_startproc\ncall noted\n.cfi_endproc\n"
#define EXTRA "noted: .cfi_startproc\nincl seen(%rip)\nret\n.cfi_endproc\n.local seen\n.comm seen,4\n"
#include "data_in_code_hidden.h"
static int run(int n) { return enter(n, 0) + author[1] * 0; }
