//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: start
//#AlsoUnnamed: gcc -O3
/* `signal` has two arguments. What is in the registers behind them when it is called is nothing
 * that is handed over together with the handler. */
#include <signal.h>
#include <string.h>

struct service {
    int socket, backlog;
    char name[32];
};

static volatile sig_atomic_t stopped;

static void stop(int number) {
    stopped = number;
}

int start(const struct service *service, const char *name, int backlog) {
#if NEW
    backlog += service->backlog;
    if (strncmp(name, service->name, 8))
        return -1;
    if (backlog < 0)
        return -2;
#endif
    signal(SIGTERM, stop);
    return service->socket + backlog + stopped + (name != NULL);
}

int same(const char *one, const char *other) {
    return !strncmp(one, other, 8);
}
