//#ExpectVerdict: safe
//#ExpectChanged: read_name
/* The everyday security fix: a length is compared before it is used. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct message {
    unsigned char length;
    char text[255];
};

__attribute__((noipa)) int read_name(char *name, size_t size, const struct message *message) {
    size_t length = message->length;
#if NEW
    if (length >= size)
        return -1;
#endif
    memcpy(name, message->text, length);
    name[length] = '\0';
    return size > 0 ? (int)length : 0;
}

__attribute__((noipa)) unsigned sum(const char *name) {
    unsigned total = 0;
    for (; *name; name++)
        total = total * 31 + (unsigned char)*name;
    return total;
}

int main(void) {
    struct message message = {.length = 5, .text = "hello"};
    char name[16];
    for (unsigned turn = 0;; turn++) {
        message.text[0] = (char)('a' + turn % 26);
        if (read_name(name, sizeof name, &message) < 0 || printf("%u\n", sum(name)) < 0)
            return 1;
        sleep(1);
    }
}
