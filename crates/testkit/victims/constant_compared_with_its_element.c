//#ExpectVerdict: review
//#ExpectReason: constant-address
/* Code that stays compares what replaced code stored with an element of the table of which
 * replaced code takes the start. */
#include <stdio.h>
#include <unistd.h>

#define ALONE __attribute__((noipa))

struct row {
    int name, value;
};
static const struct row rows[] = {{'a', 1}, {'b', 2}, {'c', 4}, {'d', 8}};
static const struct row *current;

ALONE static int is_last(void) {
    return current == &rows[3];
}

ALONE static void set(unsigned number) {
    current = &rows[number & 3];
    puts(NEW ? "new" : "old");
}

int main(void) {
    for (unsigned number = 0; number < 1000000; number++) {
        set(number);
        printf("%c %d\n", current->name, is_last());
        sleep(1);
    }
    return 0;
}
