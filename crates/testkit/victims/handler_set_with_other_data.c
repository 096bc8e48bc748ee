//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: callback-handed-otherwise
//#ExpectChanged: start
/* `on_exit` has two arguments, and the second one is what the handler gets: what old code set up
 * gets what old code gave it. */
#include <stdio.h>
#include <stdlib.h>

struct service {
    int socket, backlog;
    void *data;
};

static int stopped;

static void stop(int status, void *what) {
    stopped = status + (what != NULL);
}

int start(struct service *service, void *data, int backlog) {
#if NEW
    if (!service || service->socket < 0 || backlog < 0) {
        fputs("there is nothing to listen at\n", stderr);
        return -1;
    }
#endif
    service->backlog = backlog;
    on_exit(stop, NEW ? (void *)service : data);
    return stopped;
}
