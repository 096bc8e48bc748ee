/* Rows of two words that belong together, and a thread that is always about to read the second. */
#ifndef TORN_H
#define TORN_H

#include "answers.h"
#include <pthread.h>
#include <unistd.h>

struct row {
    const char *text;
    long bytes;
};

/* How often the words were of two versions. */
static volatile long torn;

/* The row that is read; each source says which. */
static volatile unsigned which;

/* Reads one word of a row, and after a while the other. */
ALONE static int is_torn(unsigned number);

static void *reads(void *nothing) {
    for (;;) {
        torn = torn + is_torn(which);
        usleep(500);
    }
    return nothing;
}

#endif
