//#ExpectVerdict: review
//#Exchange: 0 | x a 1 0 a 1 | zero a 1 0 a 1
//#Exchange: 1 | x b 2 1 b 2 | one b 2 1 b 2
//#Exchange: 3 | x b 6 1 b 4 | three b 6 1 b 4
/* New code brings a table of texts, and goes on to use two others of its section, which did not
 * change: state and code that stays know them by their addresses. */
#include "answers.h"

struct operations {
    int (*run)(int);
    const char *name;
};

ALONE static int more(int number) {
    return number + 1;
}

ALONE static int twice(int number) {
    return number * 2;
}

static const struct operations a = {more, "a"}, b = {twice, "b"};
static const struct operations *const all[] = {&a, &b};
static const struct operations *current = &a;

ALONE static int is_b(void) {
    return current == &b;
}

ALONE static const char *name(unsigned index) {
    return all[index & 1]->name;
}

ALONE static int run_first(int number) {
    return a.run(number);
}

#if NEW
static const char *const names[] = {"zero", "one", "two", "three"};
#endif

ALONE static void choose(int number) {
    current = all[number & 1];
#if NEW
    fputs(names[number & 3], stdout);
#else
    fputs("x", stdout);
#endif
}

static void answer(const char *asked) {
    int number = atoi(asked);
    choose(number);
    printf(" %s %d %d %s %d\n", current->name, current->run(number), is_b(), name((unsigned)number),
           run_first(number));
}

int main(void) {
    return serve();
}
