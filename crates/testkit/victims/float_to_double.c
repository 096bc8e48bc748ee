//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Fix of a loss of precision: a rate becomes a double, in what was padding. */
struct acct {
    long id;
#if NEW
    double rate;
#else
    float rate;
#endif
};

void acct_set(struct acct *a, long cents) {
    a->rate = cents / 128.0;
}

long acct_fee(struct acct *a, long k) {
    return k * a->rate;
}
