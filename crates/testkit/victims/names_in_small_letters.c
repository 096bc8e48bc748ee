//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-meaning
//#ExpectChanged: find
//#ExpectChanged: keep
/* Names are kept in small letters from now on, and looked up so: those that old code kept as they
 * were written are not found any more. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct header {
    struct header *next;
    char name[32];
    int value;
};

static struct header *all;

int is_word(const char *text) {
    while (*text)
        if (tolower(*text++) < 'a')
            return 0;
    return 1;
}

int keep(const char *name, int value) {
    struct header *header = calloc(1, sizeof *header);
    if (!header)
        return -1;
    for (int i = 0; name[i] && i < 31; i++)
#if NEW
        header->name[i] = tolower((unsigned char)name[i]);
#else
        header->name[i] = name[i];
#endif
    header->value = value;
    header->next = all;
    all = header;
    return 0;
}

int find(const char *name) {
#if NEW
    char small[32] = "";
    for (int i = 0; name[i] && i < 31; i++)
        small[i] = tolower((unsigned char)name[i]);
    name = small;
#endif
    for (const struct header *each = all; each; each = each->next)
        if (!strcmp(each->name, name))
            return each->value;
    return -1;
}
