//#ExpectVerdict: safe
//#Images: program one
//#Exchange: 5 | 5 once | 6 once
/* Constructors are not run again. */
#ifdef IMAGE_one
int changed(int number);
int starts(void);
static int started;
__attribute__((constructor)) static void start(void) {
    started++;
}
__attribute__((noipa)) int starts(void) {
    return started;
}
__attribute__((noipa)) int changed(int number) {
#if NEW
    return number < 0 ? 0 : number + 1;
#else
    return number < 0 ? 0 : number;
#endif
}
#else
#include "answers.h"
int changed(int number);
int starts(void);

static void answer(const char *asked) {
    printf("%d %s\n", changed(atoi(asked)), starts() == 1 ? "once" : "again");
}

int main(void) {
    return serve();
}
#endif
