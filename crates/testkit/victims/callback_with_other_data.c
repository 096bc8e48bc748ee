//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: callback-handed-otherwise
/* Fix of a use after free: a timer gets the session, not the connection that leads to it. Code
 * that stays takes the callback, too. */
struct sessn {
    long n;
    long fired;
};

struct conn {
    struct sessn *s;
    long fd;
};

static struct {
    void (*f)(void *);
    void *d;
} timers[8];

static int n;

void timer_add(void (*f)(void *), void *d) {
    timers[n].f = f;
    timers[n++].d = d;
}

void timer_del(void (*f)(void *)) {
    for (int i = 0; i < n; i++)
        if (timers[i].f == f)
            timers[i] = timers[--n];
}

void timers_run(void) {
    for (int i = 0; i < n; i++)
        timers[i].f(timers[i].d);
}

static __attribute__((noinline)) void fire(void *d) {
#if NEW
    struct sessn *s = d;
#else
    struct sessn *s = ((struct conn *)d)->s;
#endif
    s->n++;
    if (s->n > 100)
        s->fired = s->n * 3;
}

long conn_arm(struct conn *c) {
#if NEW
    timer_add(fire, c->s);
#else
    timer_add(fire, c);
#endif
    return c->fd;
}

void conn_stop(void) {
    timer_del(fire);
}
