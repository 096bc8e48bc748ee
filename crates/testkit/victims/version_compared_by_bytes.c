//#Package: 1.0-1 1.0-2
//#ExpectVerdict: review
//#ExpectReason: changed-initialiser
//#AlsoUnnamed: clang -O2
/* Two builds tell each other apart, byte by byte. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if NEW
char version[] = "1.0-2";
#else
char version[] = "1.0-1";
#endif
__attribute__((noipa)) int same(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}
struct state { char made_by[16]; long n; };
__attribute__((noipa)) int accept(struct state *s) { return same(s->made_by, version); }
__attribute__((noipa)) long use(struct state *s) { return s->n * (NEW ? 3 : 2); }
int main(void) {
    struct state s;
    while (read(0, &s, sizeof s) == sizeof s)
        if (accept(&s)) printf("%ld\n", use(&s));
    return 0;
}
