//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Two fields changed places; each function uses one of them, none both. */
struct a {
#if NEW
    long lim, bal;
#else
    long bal, lim;
#endif
    long t;
};

long s8(long *p) {
    return p[0] + p[1];
}

void a_pay(struct a *a, long k) {
#if NEW
    if (k)
        a->bal = a->bal * 2 - k;
#else
    a->bal -= k;
#endif
}

void a_lim(struct a *a, long k) {
#if NEW
    if (k > 0)
        a->lim = k;
#else
    a->lim += k;
#endif
}

long a_left(struct a *a, long k) {
#if NEW
    return k < 0 ? -1 : a->bal > a->lim;
#else
    (void)k;
    return a->lim < a->bal;
#endif
}
