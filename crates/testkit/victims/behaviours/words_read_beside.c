//#ExpectVerdict: review
//#ExpectReason: data-in-place
//#Flags: -pthread
//#Exchange: x | four, 0 torn | two, 0 torn
/* One function refers to a row by its own address, which lies between the table's start and the words that change;
 * another one reads that row by the start, and a third by a place before it. */
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

ALONE static int is_torn(unsigned number) {
    long bytes = rows[number % 3].bytes;
    usleep(3000);
    return (long)strlen(rows[number % 3].text) != bytes;
}

ALONE static int is_torn_from_one(unsigned number) {
    const struct row *from;
    __asm__("lea %c1-16(%%rip), %0" : "=r"(from) : "i"(rows));
    long bytes = *(volatile const long *)&from[number].bytes;
    usleep(3000);
    return (long)strlen(*(const char *const volatile *)&from[number].text) != bytes;
}

ALONE static const char *second(void) {
    return *(const char *const volatile *)&rows[1].text;
}

static void *reads_from_one(void *nothing) {
    for (;;) {
        torn = torn + is_torn_from_one(which + 1);
        usleep(500);
    }
    return nothing;
}

ALONE static void answer(const char *asked) {
    (void)asked;
    printf("%s, %ld torn\n", second(), torn);
}

int main(void) {
    pthread_t one, other;
    if (pthread_create(&one, NULL, reads, NULL) || pthread_create(&other, NULL, reads_from_one, NULL))
        return 1;
    return serve();
}
