//#ExpectVerdict: refused
//#ExpectRefusal: role-unproven
/* A text among the code that changed is reached from the address of the function before it. */
extern const char before[] __attribute__((visibility("hidden")));

static inline const char *behind(void) {
    const char *text = before;
    __asm__ volatile("" : "+r"(text));
    return text + 64;
}
#define LETTERS behind()
#include "data_in_code_decodes.c"
