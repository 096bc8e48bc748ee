//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: call-moved
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* The queue holds a reference now: what old code queued without one is freed too early. */
#include <stdlib.h>

struct object {
    int references, value;
};
struct queue {
    struct object *head;
    int length;
};

__attribute__((noinline)) void hold(struct object *object) { __sync_add_and_fetch(&object->references, 1); }
__attribute__((noinline)) void drop(struct object *object) {
    if (__sync_sub_and_fetch(&object->references, 1) == 0)
        free(object);
}
__attribute__((noinline)) void copy(struct object **to, struct object *object) {
    hold(object);
    drop(*to);
    *to = object;
}
__attribute__((noinline)) void push(struct queue *queue, struct object *object) {
#if NEW
    hold(object);
#endif
    queue->head = object;
    queue->length++;
}
__attribute__((noinline)) int pop(struct queue *queue) {
    struct object *object = queue->head;
    int value = object->value;
    queue->head = NULL;
    queue->length--;
#if NEW
    drop(object);
#endif
    return value;
}
