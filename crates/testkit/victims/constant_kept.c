//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: constant-address
/* An object remembers its kind by the address of a constant, and code that stays compares two. */
struct kind {
    long least, most;
};
static const struct kind ordinary = {1, 200};

struct object {
    const struct kind *kind;
    long number;
};

int object_make(struct object *object, long number) {
#if NEW
    if (number < 0)
        return -1;
#endif
    object->kind = &ordinary;
    object->number = number;
    return 0;
}

int alike(const struct object *one, const struct object *other) {
    return one->kind == other->kind;
}
