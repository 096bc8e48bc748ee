//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Fix: a limit that could be set has a default from now on, and is enforced. */
static struct {
    int debug;
    int ready;
    long limit;
} conf;

void lib_init(int debug) {
    conf.debug = debug;
    conf.ready = 1;
#if NEW
    conf.limit = 4096;
#endif
}

void lib_set_limit(long n) {
    conf.limit = n;
}

long lib_limit(void) {
    return conf.limit;
}

int lib_check(long n) {
    if (!conf.ready)
        return -2;
#if NEW
    if (n > conf.limit)
        return -1;
#else
    if (conf.limit && n > conf.limit)
        return -1;
#endif
    return 0;
}
