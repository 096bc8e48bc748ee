//#ExpectVerdict: review
//#ExpectReason: data-in-place
//#Flags: -pthread
//#Exchange: x | four, 0 torn | two, 0 torn
/* Two words of a row belong together, and somebody is always about to read the second. */
#include "torn.h"

static const struct row rows[] = {
#if NEW
    {"two", 3},
#else
    {"four", 4},
#endif
    {"three", 5},
};

static volatile unsigned which = 0;

/* Stays, and reads the table. */
ALONE static int is_torn(unsigned number) {
    long bytes = rows[number % 2].bytes;
    usleep(3000);
    return (long)strlen(rows[number % 2].text) != bytes;
}

ALONE static void answer(const char *asked) {
    (void)asked;
    printf("%s, %ld torn\n", rows[which % 2].text, torn);
}

int main(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, reads, NULL) != 0)
        return 1;
    return serve();
}
