//#ExpectVerdict: safe
//#Images: program one
//#Exchange: 5 | same 5 1 | same 6 1
/* Data of another library: by copy relocation in the program, by a GOT slot in the library. */
#ifdef IMAGE_one
#include <stdio.h>
#include <unistd.h>
FILE *theirs(int *number);
__attribute__((noipa)) FILE *theirs(int *number) {
#if NEW
    *number += 1;
#else
    *number += 0;
#endif
    return optind >= 0 ? stderr : stdout;
}
#else
#include "answers.h"
#include <unistd.h>
FILE *theirs(int *number);

ALONE static int index_of(int number) {
#if NEW
    return number > 1000000 ? opterr : optind;
#else
    return number > 2000000 ? opterr : optind;
#endif
}

static void answer(const char *asked) {
    int number = atoi(asked);
    const char *which = theirs(&number) == stderr ? "same" : "another";
    printf("%s %d %d\n", which, number, index_of(number));
}

int main(void) {
    return opterr ? serve() : 1;
}
#endif
