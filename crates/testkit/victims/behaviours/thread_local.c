//#ExpectVerdict: safe
//#Images: program one
//#Exchange: 5 | 5 7 main 0 | 6 8 main 0
/* Thread-local variables, by the program's own offset and by a library's descriptor, in two threads at once. */
#ifdef IMAGE_one
int remember(int number);
static __thread int kept;
extern __thread int shared;
__thread int shared;
__attribute__((noipa)) int remember(int number) {
#if NEW
    kept = number + 1;
#else
    kept = number;
#endif
    shared += 1;
    return kept;
}
#else
#include "answers.h"
#include <pthread.h>

int remember(int number);
extern __thread int shared;
static __thread int mine = 2;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static int asked_number = -1, answered;
static char text[64];

ALONE static int add(int number) {
#if NEW
    return number + mine + 1;
#else
    return number + mine;
#endif
}

static void *work(void *unused) {
    pthread_mutex_lock(&lock);
    for (;;) {
        while (asked_number < 0)
            pthread_cond_wait(&turn, &lock);
        snprintf(text, sizeof text, "%d %d", remember(asked_number), add(asked_number));
        asked_number = -1;
        answered = 1;
        pthread_cond_broadcast(&turn);
    }
    return unused;
}

static void answer(const char *asked) {
    pthread_mutex_lock(&lock);
    asked_number = atoi(asked);
    answered = 0;
    pthread_cond_broadcast(&turn);
    while (!answered)
        pthread_cond_wait(&turn, &lock);
    pthread_mutex_unlock(&lock);
    /* What the other thread counted is its own. */
    printf("%s main %d\n", text, shared);
}

int main(void) {
    pthread_t thread;
    return pthread_create(&thread, NULL, work, NULL) ? 1 : serve();
}
#endif
