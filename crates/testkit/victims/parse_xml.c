/* Parses a document with libexpat for ever and counts its elements.
 *
 * Declares the few functions of expat.h that it uses, so that no headers are needed.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct XML_ParserStruct *XML_Parser;
XML_Parser XML_ParserCreate(const char *);
void XML_SetUserData(XML_Parser, void *);
void XML_SetElementHandler(XML_Parser, void (*)(void *, const char *, const char **), void (*)(void *, const char *));
int XML_Parse(XML_Parser, const char *, int, int);
void XML_ParserFree(XML_Parser);

static volatile sig_atomic_t ending;

static void end(int signal) {
    (void)signal;
    ending = 1;
}

static void opened(void *count, const char *name, const char **attributes) {
    (void)name;
    (void)attributes;
    ++*(unsigned long *)count;
}

static void closed(void *count, const char *name) {
    (void)count;
    (void)name;
}

int main(void) {
    static const char document[] = "<a><b x='1'/><b>&lt;</b><c><d/></c></a>";
    unsigned long rounds = 0;
    signal(SIGTERM, end);
    while (!ending) {
        unsigned long elements = 0;
        XML_Parser parser = XML_ParserCreate(NULL);
        XML_SetUserData(parser, &elements);
        XML_SetElementHandler(parser, opened, closed);
        if (XML_Parse(parser, document, (int)strlen(document), 1) != 1 || elements != 5)
            return 1;
        XML_ParserFree(parser);
        printf("rounds %lu\n", ++rounds);
        fflush(stdout);
        usleep(20000);
    }
    printf("ended well\n");
    return 0;
}
