//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
//#ExpectChanged: room
//#ExpectChanged: set_room
//#AlsoUnnamed: gcc -O3
/* A length and a room that are stored in one go: the room is kept in bytes now, and objects
 * that exist hold a number of elements. */
struct list {
    long length, room;
};

void set_room(struct list *list, long elements) {
    list->length = elements;
#if NEW
    list->room = elements * 8;
#else
    list->room = elements;
#endif
}

int room(const struct list *list, long elements) {
#if NEW
    return elements * 8 <= list->room;
#else
    return elements <= list->room;
#endif
}
