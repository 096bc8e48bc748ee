//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: parse
//#AlsoUnnamed: gcc -O3
/* `errno` lies at the start of no object of the program: that it is compared says nothing about
 * the kind of a message, which lies at the start of one. */
#include <errno.h>
#include <stdlib.h>

struct message {
    int kind;
    long length;
};

int parse(struct message *message, const char *text) {
    char *end;
    if (message->kind == 3 || message->kind == 8)
        return 1;
    errno = 0;
    long length = strtol(text, &end, 10);
#if NEW
    if (length < 0 || errno == ERANGE)
        return -1;
#endif
    message->length = length;
    message->kind = *end;
    return 0;
}
