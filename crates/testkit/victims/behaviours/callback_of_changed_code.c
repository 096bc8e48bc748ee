//#ExpectVerdict: review
//#ExpectReason: callback-rewritten
//#Exchange: 5 | 10 once | 11 once
/* Code that changed hands out a function that changed too. Only a pointer that old code stored calls it. */
#include "answers.h"

static int (*held)(int);
static int times;

ALONE static int twice(int number) {
    char digits[16];
    int length = snprintf(digits, sizeof digits, "%d", number), sum = 0;
    for (int at = 0; at < length; at++)
        sum += digits[at] == '-' ? 0 : 2 * (digits[at] - '0');
#if NEW
    sum |= 1;
#endif
    return sum;
}

ALONE static void hold(int (*callback)(int), const char *name) {
    held = callback;
    times += *name == 't';
}

ALONE static int begin(int number) {
    hold(twice, "twice");
#if NEW
    return number < -1000 ? -1000 : number;
#else
    return number;
#endif
}

static void answer(const char *asked) {
    int number = atoi(asked);
    if (!held)
        number = begin(number);
    printf("%d %s\n", held(number), times == 1 ? "once" : "again");
}

int main(void) {
    return serve();
}
