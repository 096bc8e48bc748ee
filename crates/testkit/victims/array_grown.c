//#ExpectVerdict: refused
//#ExpectRefusal: data-resized
/* An array has more rows, and something refers to one of the new ones: that says nothing about
 * where the array ends. Code that stays knows its start. */
#include <stdio.h>
#include <unistd.h>

#define ALONE __attribute__((noipa))

struct row {
    const char *a, *b, *c, *d;
};

static struct row behind[] = {{"D", "x", "y", "z"}, {"E", "x", "y", "z"}, {"F", "x", "y", "z"}, {"G", "x", "y", "z"}};
static struct row names[] = {
    {"n0", "p", "q", "r"},
    {"n1", "p", "q", "r"},
#if NEW
    {"n2", "p", "q", "r"},
    {"n3", "p", "q", "r"},
#endif
};
#if NEW
__attribute__((used)) static struct row *const fresh[] = {&names[2], &names[3]};
#endif

ALONE static const char *a_name(unsigned index) {
    return names[index & 1].a;
}

ALONE static const char *more_of_a_name(unsigned index) {
    return names[index & 1].b;
}

ALONE static const char *of_behind(unsigned index) {
    return behind[index & 3].a;
}

ALONE static const char *more_of_behind(unsigned index) {
    return behind[index & 3].c;
}

ALONE static void show(unsigned number) {
#if NEW
    printf(" %s\n", names[number & 3].a);
#else
    printf(" %s\n", names[number & 1].a);
#endif
}

int main(void) {
    for (unsigned number = 0; number < 1000000; number++) {
        if (number == 99)
            names[0].a = behind[0].a = "v";
        printf("%s %s %s %s", a_name(number), more_of_a_name(number), of_behind(number), more_of_behind(number));
        show(number);
        sleep(1);
    }
    return 0;
}
