//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: constant-address
//#ExpectChanged: object_make
//#AlsoUnnamed: gcc -O3
//#AlsoUnnamed: clang -O2
/* The addresses of two constants are stored in one go, through a vector register; code that
 * stays knows a kind by its address. */
struct kind {
    long least, most;
};
static const struct kind ordinary = {1, 200}, narrow = {5, 6};

struct object {
    const struct kind *kind, *other;
    long number;
};

int object_make(struct object *object, long number) {
#if NEW
    if (number < 0)
        return -1;
#endif
    object->kind = &ordinary;
    object->other = &narrow;
    object->number = number;
    return 0;
}

int alike(const struct object *one, const struct object *other) {
    return one->kind == other->kind && one->other == other->other;
}
