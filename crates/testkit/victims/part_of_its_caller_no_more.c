//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: node
//#ExpectChanged: sum
/* A function that grew is called where it was a part of its caller: what it calls, its caller calls
 * no more. It calls nothing less often for that. */
#include <stdio.h>
#include <stdlib.h>

struct node {
    struct node *left, *right;
    int kind, height;
};

struct parser {
    char last[64];
    int complaints;
};

__attribute__((noinline)) static void complain(struct parser *parser, const char *what, int where) {
    snprintf(parser->last, sizeof parser->last, "%s at %d", what, where);
    parser->complaints++;
}

/* Small enough for compilers to make it a part of its callers, until it grew. */
static inline __attribute__((always_inline)) struct node *grown(struct parser *parser, int kind, struct node *left,
                                                               struct node *right) {
    struct node *made = calloc(1, sizeof *made);
    if (!made) {
        complain(parser, "no memory", kind);
        return NULL;
    }
    made->kind = kind;
    made->left = left;
    made->right = right;
    made->height = 1 + (left ? left->height : 0) + (right ? right->height : 0);
#if NEW
    if (made->height > 1000)
        complain(parser, "too high", made->height);
#endif
    return made;
}

struct node *node(struct parser *parser, int kind, struct node *left, struct node *right) {
    return grown(parser, kind, left, right);
}

struct node *sum(struct parser *parser, const int *kinds, int n) {
    struct node *all = NULL;
    if (n < 0) {
        complain(parser, "a negative number", n);
        return NULL;
    }
    for (int each = 0; each < n; each++) {
#if NEW
        all = node(parser, kinds[each], all, NULL);
#else
        all = grown(parser, kinds[each], all, NULL);
#endif
        if (!all)
            return NULL;
    }
    return all;
}

struct node *leaf(struct parser *parser, int kind) {
    return node(parser, kind, NULL, NULL);
}

const char *last_complaint(const struct parser *parser) {
    return parser->complaints ? parser->last : "none";
}
