//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* Undescribed code reads a number inside a described function, which reads as instructions by chance. */
#define ONCE_HOLDS "one: .long 0x50505051\n.byte 0xc3\n"
#define TWICE_HOLDS "two: .long 0x50505052\n.byte 0xc3\n"
#define IN_ONCE "one"
#define IN_TWICE "two"
#define HIDDEN "mov jump(%rip), %eax\nret\n"
#include "data_in_code_executed.c"
