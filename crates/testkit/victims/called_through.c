//#ExpectVerdict: safe
//#ExpectChanged: changed
/* Unchanged code calls changed code, and that unchanged code again, which waits: what a
 * debugger sees then. For each line it reads it calls once; inside it says so and waits
 * for another one, at which it comes back, or ends with a core dump if the line begins
 * with `a`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP __attribute__((noipa))

static char line[64];

KEEP int inner(const char *text) {
    printf("inside %d\n", (int)strlen(text));
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin) || line[0] == 'a')
        abort();
    return line[0];
}

/* A frame that nobody finds the end of by guessing. */
KEEP int changed(int number) {
    char text[3000];
    memset(text, 'x', sizeof text);
    text[(NEW ? 200 : 100) + number] = 0;
    int answer = inner(text);
    return answer + text[0];
}

KEEP int outer(int number) {
    return changed(number + 1) * 2;
}

int main(void) {
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("came back %d\n", outer(4));
        fflush(stdout);
    }
}
