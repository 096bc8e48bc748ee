//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Two bit fields of one word become wider and narrower; each is used by a function of its own. */
struct o {
    long id;
    unsigned
#if NEW
        depth : 6,
        kind : 2;
#else
        depth : 4,
        kind : 4;
#endif
    unsigned rest : 24;
};

void o_kind(struct o *o, int k) {
    o->kind = k;
}

int o_is(struct o *o) {
    return o->kind == 1;
}
