//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Two functions ask another helper, which was there before: what is kept is in its unit. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef __clang__
#define ALONE __attribute__((noinline))
#else
#define ALONE __attribute__((noipa))
#endif

struct entry {
    int number;
    long at;
    struct entry *next;
};

static struct entry *entries;

ALONE static long milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

ALONE static long microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

ALONE static void add(int number) {
    struct entry *made = calloc(1, sizeof *made);
    made->number = number;
    made->at = NEW ? microseconds() : milliseconds();
    made->next = entries;
    entries = made;
}

ALONE static int is_later(const struct entry *entry) {
    return (NEW ? microseconds() : milliseconds()) > entry->at;
}

int main(void) {
    for (int i = 0;; i++) {
        add(i);
        printf("%d %ld\n", is_later(entries), microseconds() - milliseconds());
        sleep(1);
    }
}
