//#ExpectVerdict: review
//#ExpectReason: data-in-place
//#Flags: -pthread
//#Exchange: x | four, 0 torn | two, 0 torn
/* Who reads the row is in a part of its function that lies elsewhere, with the row's address in a register. */
#include "torn.h"

static const struct row rows[] = {
    {"zero", 4},
#if NEW
    {"two", 3},
#else
    {"four", 4},
#endif
    {"three", 5},
};

static volatile unsigned which = 1;

__attribute__((cold)) ALONE static void slowly(void) {
    usleep(1500);
}

ALONE static int is_torn(unsigned number) {
    const volatile struct row *row = &rows[number % 3];
    __asm__("" : "+r"(row));
    if (__builtin_expect(number < 100, 0)) {
        long bytes = row->bytes;
        slowly();
        slowly();
        return (long)strlen(row->text) != bytes;
    }
    return row->bytes == 0;
}

ALONE static void answer(const char *asked) {
    (void)asked;
    printf("%s, %ld torn\n", rows[which % 3].text, torn);
}

int main(void) {
    pthread_t one;
    if (pthread_create(&one, NULL, reads, NULL))
        return 1;
    return serve();
}
