//#ExpectVerdict: refused
//#ExpectRefusal: struct-layout
/* A field is put in front of others: what old code stored, new code would read elsewhere. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct connection {
    uint64_t id, opened, bytes_in;
#if NEW
    uint64_t limit;
#endif
    uint64_t bytes_out, errors, closed;
    char name[64];
};

__attribute__((noipa)) struct connection *connect_to(uint64_t id) {
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        exit(2);
    c->id = id;
    c->opened = id * 3;
    snprintf(c->name, sizeof c->name, "connection %lu", (unsigned long)id);
    return c;
}

__attribute__((noipa)) void count_in(struct connection *c, uint64_t bytes) { c->bytes_in += bytes; }
__attribute__((noipa)) void count_out(struct connection *c, uint64_t bytes) { c->bytes_out += bytes * 2; }
__attribute__((noipa)) void count_error(struct connection *c) { c->errors = c->errors * 3 + 1; }
__attribute__((noipa)) void close_at(struct connection *c, uint64_t when) { c->closed = when ^ c->opened; }
__attribute__((noipa)) int report(const struct connection *c) {
    return printf("%s: %lu out, %lu errors, closed %lu\n", c->name, (unsigned long)c->bytes_out,
                  (unsigned long)c->errors, (unsigned long)c->closed);
}

int main(void) {
    for (uint64_t id = 0;; id++) {
        struct connection *c = connect_to(id);
        count_in(c, 1);
        count_out(c, 2);
        count_error(c);
        close_at(c, id);
        if (report(c) < 0)
            return 1;
        free(c);
        sleep(1);
    }
}
