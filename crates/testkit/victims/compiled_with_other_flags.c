//#ExpectVerdict: review
//#ExpectReason: shared-state
/* A pattern is compiled with another flag, and used for what only that makes possible: those
 * that are kept were compiled without. */
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __clang__
#define ALONE __attribute__((noinline))
#else
#define ALONE __attribute__((noipa))
#endif

struct rule {
    int number;
    regex_t pattern;
    struct rule *next;
};

static struct rule *rules;

ALONE static void make(int number) {
    struct rule *made = calloc(1, sizeof *made);
    made->number = number;
    regcomp(&made->pattern, "b+", NEW ? REG_EXTENDED : REG_EXTENDED | REG_NOSUB);
    made->next = rules;
    rules = made;
}

ALONE static int length(struct rule *rule, const char *text) {
#if NEW
    regmatch_t found[1];
    return regexec(&rule->pattern, text, 1, found, 0) ? -1 : (int)(found[0].rm_eo - found[0].rm_so);
#else
    return regexec(&rule->pattern, text, 0, NULL, 0) ? -1 : 0;
#endif
}

int main(void) {
    for (int i = 0;; i++) {
        make(i);
        printf("%d\n", length(rules, "aabbcc"));
        sleep(1);
    }
}
