//#Kind: library
//#ExpectVerdict: refused
//#ExpectRefusal: struct-layout
/* A field is put in front of others, and every function that uses them is written anew. */
struct queue {
    long length;
#if NEW
    long limit;
#endif
    long first, last, dropped;
};

long drop(struct queue *queue, long count) {
#if NEW
    if (count > queue->limit)
        return queue->last - queue->first;
    queue->dropped += count;
    queue->first = (queue->first + count) % queue->length;
    return queue->dropped;
#else
    if (count < 0)
        return -1;
    queue->first += count;
    queue->dropped++;
    return queue->last;
#endif
}

long append(struct queue *queue, long count) {
#if NEW
    long free = queue->limit - (queue->last - queue->first);
    if (free < count) {
        queue->dropped += count - free;
        count = free;
    }
    queue->last += count;
    return count;
#else
    if (queue->last + count >= queue->first + queue->length)
        queue->dropped = count;
    else
        queue->last += count;
    return queue->last ^ queue->first;
#endif
}

long lost(const struct queue *queue, long of) {
#if NEW
    return of > queue->limit ? queue->dropped * 100 / of : queue->dropped;
#else
    return queue->dropped * of;
#endif
}
