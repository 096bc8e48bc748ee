//#ExpectVerdict: refused
//#ExpectRefusal: unproven-reference
/* Undescribed code jumps into the midst of an instruction, where another one begins. */
#define ONCE_HOLDS "test $0x90c3c031, %eax\nret\n"
#define TWICE_HOLDS "test $0x90c3f889, %eax\nret\n"
#define IN_ONCE "once+5"
#define IN_TWICE "twice+5"
#include "data_in_code_executed.c"
