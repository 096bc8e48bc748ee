//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* field_in_padding.c beside code that stays and uses the same offset of another structure. */
struct object {
    long id;
    char kind;
#if NEW
    char closed;
#endif
    int count;
};

struct other {
    char name[8];
    char a, b;
};

int other(struct other *o) {
    return o->b;
}

void close_it(struct object *o) {
    o->kind = 0;
#if NEW
    o->closed = 1;
#endif
}

void open_it(struct object *o, char kind) {
    o->kind = kind;
#if NEW
    o->closed = 0;
#endif
}

int use(struct object *o) {
#if NEW
    if (o->closed)
        return -1;
#endif
    return o->count++;
}
