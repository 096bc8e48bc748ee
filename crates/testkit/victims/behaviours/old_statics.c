//#ExpectVerdict: safe
//#Exchange: 5 | count 5 table 30 calls @ | count 105 table 30 calls @
/* New code works on the variables of the old: file-scope, function-scope, zeroed and initialised. */
#include "answers.h"

static int count;
static int table[] = {10, 20, 30};
static int last = 2;

ALONE static int note(int number) {
    static int calls = 100;
    calls++;
#if NEW
    count = number + 100;
#else
    count = number;
#endif
    return calls;
}

static void answer(const char *asked) {
    static int before = 100;
    int calls = note(atoi(asked));
    /* Counted on without a gap, whichever code counts. */
    printf("count %d table %d calls %s\n", count, table[last], calls == before + 1 ? "@" : "lost");
    before = calls;
}

int main(void) {
    return serve();
}
