//#ExpectVerdict: review
//#ExpectReason: startup-code
/* main calls setup once, and that calls what changed: it has run long ago. */
#include <stdio.h>
#include <string.h>

struct conf {
    long limit, used, on, k;
};
static struct conf conf;

static __attribute__((noipa)) void defaults(struct conf *c, long n) {
    c->limit = n * 4;
#if NEW
    c->used = 16;
#endif
    c->on = 1;
}

static __attribute__((noipa)) void setup(struct conf *c, int argc) {
    defaults(c, argc);
    puts("READY");
    fflush(stdout);
    c->k = argc;
}

__attribute__((noipa)) long mixed(long *p) {
    return p[0] + p[1] * p[2];
} /* other code uses these offsets of other objects */

static __attribute__((noipa)) long take(struct conf *c, long n) {
#if NEW
    if (c->used < 16)
        return -1;
    c->used += n;
    return c->used;
#else
    c->used += n;
    return c->used + 16;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    setup(&conf, argc);
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        printf("%ld\n", take(&conf, strlen(line)));
        fflush(stdout);
    }
    return mixed(&conf.limit);
}
