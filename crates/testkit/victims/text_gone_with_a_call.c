//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: too_much
/* The register that held the address of a text holds what a call of another library returned
 * when it is subtracted. */
#include <stdio.h>
#include <string.h>

struct line {
    const char *kind;
    char text[64];
};

size_t too_much(struct line *line, const char *text, size_t most) {
    line->kind = "a line of text";
#if NEW
    if (most > sizeof line->text)
        return 0;
#endif
    return strlen(text) - most;
}
