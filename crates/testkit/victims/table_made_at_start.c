//#ExpectVerdict: review
//#ExpectReason: startup-code
/* A table is made once, when the program starts, in a function with a loop. */
#include <stdio.h>
#include <string.h>

static int step[256];

static __attribute__((noinline)) void init_table(void) {
    for (int i = 0; i < 256; i++)
#if NEW
        step[i] = i < 128 ? 1 : i < 0xe0 ? 2 : 3;
#else
        step[i] = i < 128 ? 0 : i < 0xe0 ? 1 : 2;
#endif
}

static __attribute__((noinline)) int scan(const unsigned char *p, int n) {
    int r = 0;
    for (int i = 0; i < n; r++) {
#if NEW
        i += step[p[i]];
#else
        i += step[p[i]] + 1;
#endif
    }
    return r;
}

int main(void) {
    init_table();
    char line[256];
    puts("READY");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%d\n", scan((unsigned char *)line, strlen(line)));
        fflush(stdout);
    }
}
