//#ExpectVerdict: safe
//#Exchange: 5 | 1000 say 5, 0 say 6 | 0 say 5, 1000 say 6
//#Exchange: 41 | 1000 say 41, 0 say 42 | 0 say 41, 1000 say 42
/* A thousand threads, asleep without a timeout until they are asked; each of them answers. */
#include "answers.h"
#include <pthread.h>

enum { THREADS = 1000 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t asking = PTHREAD_COND_INITIALIZER, answered = PTHREAD_COND_INITIALIZER;
static long turn;
static int question, answers, said[2];

ALONE static int changed(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

static void *work(void *unused) {
    long last = 0;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (turn == last)
            pthread_cond_wait(&asking, &lock);
        last = turn;
        int asked = question;
        pthread_mutex_unlock(&lock);
        int got = changed(asked) - asked;
        pthread_mutex_lock(&lock);
        if (got == 0 || got == 1)
            said[got]++;
        if (++answers == THREADS)
            pthread_cond_signal(&answered);
    }
    return unused;
}

static void answer(const char *asked) {
    pthread_mutex_lock(&lock);
    question = atoi(asked);
    answers = said[0] = said[1] = 0;
    turn++;
    pthread_cond_broadcast(&asking);
    while (answers < THREADS)
        pthread_cond_wait(&answered, &lock);
    printf("%d say %d, %d say %d\n", said[0], question, said[1], question + 1);
    pthread_mutex_unlock(&lock);
}

int main(void) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    for (int index = 0; index < THREADS; index++) {
        pthread_t thread;
        if (pthread_create(&thread, &small, work, NULL))
            return 1;
    }
    return serve();
}
