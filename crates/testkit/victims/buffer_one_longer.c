//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Fix of a read beyond the end: the buffer is one byte longer, and who fills it ends the text. */
#include <stdlib.h>
#include <string.h>

struct buffer {
    size_t size, used;
    char *memory;
};

int buffer_make(struct buffer *buffer, size_t size) {
#if NEW
    buffer->memory = malloc(size + 1);
#else
    buffer->memory = malloc(size);
#endif
    buffer->size = size;
    buffer->used = 0;
    return buffer->memory ? 0 : -1;
}

void buffer_put(struct buffer *buffer, const char *text, size_t len) {
    if (len > buffer->size - buffer->used)
        len = buffer->size - buffer->used;
    memcpy(buffer->memory + buffer->used, text, len);
    buffer->used += len;
#if NEW
    buffer->memory[buffer->used] = 0;
#endif
}

void buffer_free(struct buffer *buffer) {
    free(buffer->memory);
    buffer->memory = NULL;
}
