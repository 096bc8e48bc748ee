//#ExpectVerdict: review
//#ExpectReason: data-in-place
//#ExpectOutcome: not-applied table-not-from-file
//#Exchange: x | one | one
/* Whoever makes its tables writable again may have written to them. */
#include "answers.h"
#include <stdint.h>
#include <sys/mman.h>

static const char *const words[] = {
    "zero",
#if NEW
    "uno",
#else
    "one",
#endif
};

ALONE static const char *word(unsigned number) {
    return words[number % 2];
}

ALONE static void answer(const char *asked) {
    (void)asked;
    puts(word(1));
}

int main(void) {
    uintptr_t page = (uintptr_t)words & ~(uintptr_t)4095;
    if (mprotect((void *)page, 4096, PROT_READ | PROT_WRITE))
        return 1;
    return serve();
}
