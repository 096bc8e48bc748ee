//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: call-moved
//#ExpectChanged: attach
//#ExpectChanged: detach
/* One function refers to another object by way of a function that takes a reference, too, and the
 * one that it took is taken elsewhere. */
#include <stdio.h>
#include <stdlib.h>

struct object {
    int references, state;
    struct object *next;
};

static struct object *kept;

__attribute__((noinline)) void refer(struct object *object) {
    object->references++;
    printf("%d\n", object->references);
}

__attribute__((noinline)) void keep(struct object *object) {
    refer(object);
    puts("kept");
    kept = object;
}

int attach(struct object *object, struct object *owner) {
#if NEW
    keep(owner);
    object->state = 1;
#else
    refer(object);
    puts("kept");
    object->state = 1;
    owner->state++;
#endif
    return puts("attached");
}

int detach(struct object *object) {
#if NEW
    refer(object);
#endif
    if (kept == object)
        kept = NULL;
    object->state = 0;
    return puts("detached");
}
