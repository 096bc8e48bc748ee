//#ExpectVerdict: review
//#ExpectReason: startup-code
/* Two tables are made by one function when the program starts, and never again. */
#include <stdio.h>
#include <stdlib.h>

static int even[64], odd[64];

static __attribute__((noipa)) void make(int *table, int first) {
    for (int i = 0; i < 64; i++)
#if NEW
        table[i] = first + 2 * i + 1;
#else
        table[i] = first + 2 * i;
#endif
}

int main(void) {
    make(even, 0);
    make(odd, 1);
    for (char line[64]; fgets(line, sizeof line, stdin);)
        printf("%d %d\n", even[atoi(line) & 63], odd[atoi(line) & 63]);
    return 0;
}
