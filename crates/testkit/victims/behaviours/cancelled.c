//#ExpectVerdict: safe
//#Exchange: 5 | 5 cancelled cleaned 1 | 6 cancelled cleaned 1
/* A thread is cancelled inside the changed function; its handlers run. */
#include "answers.h"
#include <pthread.h>
#include <unistd.h>

static int cleaned;

static void clean(void *amount) {
    cleaned += *(int *)amount;
}

ALONE static int sleep_long(int number) {
    if (number < 0)
        pause();
#if NEW
    return number + 1;
#else
    return number;
#endif
}

static void *work(void *unused) {
    int amount = 1;
    pthread_cleanup_push(clean, &amount);
    sleep_long(-1);
    pthread_cleanup_pop(0);
    return unused;
}

static void answer(const char *asked) {
    pthread_t thread;
    void *result = NULL;
    cleaned = 0;
    if (pthread_create(&thread, NULL, work, NULL))
        exit(1);
    usleep(20000);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    printf("%d %s cleaned %d\n", sleep_long(atoi(asked)), result == PTHREAD_CANCELED ? "cancelled" : "ran", cleaned);
}

int main(void) {
    return serve();
}
