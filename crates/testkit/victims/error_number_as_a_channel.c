//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
//#ExpectChanged: receive
//#ExpectChanged: recover
/* Two functions tell each other by `errno` what happened, and in other words than before. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct link {
    int state, length;
    char text[64];
};

int receive(struct link *link, const char *text) {
    if (!text) {
#if NEW
        errno = ENOMSG;
#else
        errno = EINVAL;
#endif
        return -1;
    }
#if NEW
    if (strlen(text) > 60) {
        errno = E2BIG;
        return -1;
    }
#endif
    link->length = printf("%s\n", text);
    return 0;
}

int recover(struct link *link) {
#if NEW
    if (errno == ENOMSG || errno == E2BIG) {
#else
    if (errno == EINVAL) {
#endif
        link->length = 0;
        return 1;
    }
    return puts(link->text);
}
