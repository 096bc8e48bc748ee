//#Kind: program
//#ExpectVerdict: refused
//#ExpectReason: data-changed
/* A table says how large a buffer is, and the buffer grows. The running process has the small one. */
#include <stdio.h>
#include <string.h>

#define SIZE (NEW ? 64 : 32)

static char before[32], name[SIZE], behind[32];

struct option {
    const char *key;
    char *to;
    unsigned long size;
};

static const struct option options[] = {
    {"name", name, SIZE}, {"before", before, sizeof before}, {"behind", behind, sizeof behind}};

__attribute__((noipa)) void set(const char *key, const char *value) {
    for (unsigned i = 0; i < sizeof options / sizeof *options; i++)
        if (!strcmp(options[i].key, key))
            strncpy(options[i].to, value, options[i].size - 1);
}

__attribute__((noipa)) void show(void) {
    for (unsigned i = 0; i < sizeof options / sizeof *options; i++)
        printf("%s=%s\n", options[i].key, options[i].to);
}

int main(int count, char **values) {
    for (int i = 2; i < count; i += 2)
        set(values[i - 1], values[i]);
    show();
    return 0;
}
