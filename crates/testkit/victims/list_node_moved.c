//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-encoding
/* A field in front of an embedded list node: who holds the node finds the object from there. */
struct node {
    struct node *next;
};

struct a {
    long id;
#if NEW
    long gen;
#endif
    struct node n;
    long v[3];
};

long st(long *p) {
    return p[0] + p[1] - p[2] * p[3];
}

void push(struct a *a, struct node **l) {
#if NEW
    if (a->n.next)
        return;
    a->gen = 1;
#endif
    a->n.next = *l;
    *l = &a->n;
}

long sum(struct node *l) {
    long r = 0;
    for (; l; l = l->next) {
        struct a *a = (void *)((char *)l - __builtin_offsetof(struct a, n));
#if NEW
        if (a->gen < 0)
            continue;
        r += a->id * 2;
#else
        r += a->id;
#endif
    }
    return r;
}
