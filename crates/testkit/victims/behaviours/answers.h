/* A victim that is asked on its standard input and answers on its standard output,
 * a line each. It ends, with status 0, when nobody asks any more. */
#ifndef ANSWERS_H
#define ANSWERS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Stays a function of its own. */
#ifdef __clang__
#define ALONE __attribute__((noinline))
#else
#define ALONE __attribute__((noipa))
#endif

/* Prints one line. */
ALONE static void answer(const char *asked);

static int serve(void) {
    char line[256];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        answer(line);
        fflush(stdout);
    }
    return 0;
}

#endif
