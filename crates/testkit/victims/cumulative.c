//#ExpectVerdict: review
//#ExpectChanged: first
//#ExpectChanged: second
/* Three versions: 2 changes what 1 changed, takes one change back and makes
 * another one, in code and in a table that code which stays reads. With -DNEWER the
 * new side is version 2. */
#include <stdio.h>
#include <time.h>

#if NEW && defined NEWER
#define FIRST 300
#define SECOND 100
#define THIRD 300
#define WORDS "e", "b"
#elif NEW
#define FIRST 200
#define SECOND 200
#define THIRD 100
#define WORDS "c", "d"
#else
#define FIRST 100
#define SECOND 100
#define THIRD 100
#define WORDS "a", "b"
#endif

__attribute__((noipa)) long first(long seed) { return seed * 3 + FIRST; }
__attribute__((noipa)) long second(long seed) { return seed * 5 + SECOND; }
__attribute__((noipa)) long third(long seed) { return seed * 7 + THIRD; }

static const char *const words[] = {WORDS};

__attribute__((noipa)) const char *word(long number) { return words[number & 1]; }

int main(void) {
    struct timespec pause = {0, 20000000};
    for (long turn = 0;; turn++) {
        printf("got %ld %ld %ld %s %s\n", first(turn) - turn * 3, second(turn) - turn * 5, third(turn) - turn * 7,
               word(0), word(1));
        fflush(stdout);
        nanosleep(&pause, NULL);
    }
}
