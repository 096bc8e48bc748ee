//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Fix of a race: a transaction is under the lock that writers of the table take, which lies in the
 * object. */
#include <pthread.h>

struct db {
    pthread_mutex_t stat_lock, tab_lock;
    int stats, tab[16];
};
#if NEW
#define L tab_lock
#else
#define L stat_lock
#endif
int tx_begin(struct db *d) {
    pthread_mutex_lock(&d->L);
    return d->stats;
}

int tx_end(struct db *d) {
    int r = d->tab[3];
    pthread_mutex_unlock(&d->L);
    return r;
}

int tab_write(struct db *d, int k) {
    pthread_mutex_lock(&d->tab_lock);
    int r = d->tab[k & 15]++;
    pthread_mutex_unlock(&d->tab_lock);
    return r;
}

int stat_inc(struct db *d) {
    pthread_mutex_lock(&d->stat_lock);
    int r = d->stats++;
    pthread_mutex_unlock(&d->stat_lock);
    return r;
}
