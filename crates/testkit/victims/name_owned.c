//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Fix of a use after free: the object keeps a copy of its name instead of the caller's pointer. */
#include <stdlib.h>
#include <string.h>

struct obj {
    long id;
    const char *name;
    void *data;
};

long mixed(long *p) {
    return p[0] + p[1] * p[2];
} /* other code uses these offsets of other objects */

struct obj *obj_new(long id) {
    struct obj *o = calloc(1, sizeof *o);
    o->id = id;
    o->name = NULL;
    return o;
}

void obj_set_name(struct obj *o, const char *name) {
#if NEW
    o->name = strdup(name);
#else
    o->name = name;
#endif
}

void obj_free(struct obj *o) {
#if NEW
    free((char *)o->name);
#endif
    free(o->data);
    free(o);
}

char *obj_label(struct obj *o) {
    return strdup(o->name);
}
