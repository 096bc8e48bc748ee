//#ExpectVerdict: safe
//#Exchange: 5 | 5, 0 lost | 6, 0 lost
/* Two threads on one processor count in restartable sequences (rseq(2)): whoever is stopped in one
 * has to begin it anew, or what the other counted meanwhile is lost. */
#define _GNU_SOURCE
#include "answers.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/rseq.h>
#include <unistd.h>

static volatile long counter;
static _Atomic long counted[2];
static _Atomic int paused, pausing;

ALONE static int changed(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

/* Where it begins anew, behind the signature that the kernel looks for. */
ALONE static void count(void) {
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    __asm__ volatile(".pushsection __rseq_cs, \"aw\"\n"
                     ".balign 32\n"
                     "3: .long 0, 0\n"
                     ".quad 1f, 2f - 1f, 4f\n"
                     ".popsection\n"
                     ".pushsection __rseq_failure, \"ax\"\n"
                     ".long 0x53053053\n"
                     "4: jmp 6f\n"
                     ".popsection\n"
                     "6: lea 3b(%%rip), %%rax\n"
                     "mov %%rax, %c[sequence](%[area])\n"
                     "1: mov %[counter], %%rax\n"
                     "mov $2000, %%ecx\n"
                     "5: dec %%ecx\n"
                     "jnz 5b\n"
                     "inc %%rax\n"
                     "mov %%rax, %[counter]\n"
                     "2:\n"
                     : [counter] "+m"(counter)
                     : [area] "r"(area), [sequence] "i"(offsetof(struct rseq, rseq_cs))
                     : "rax", "rcx", "cc", "memory");
}

static void *work(void *own) {
    for (;;) {
        while (paused) {
            if (own)
                pausing |= own == &counted[0] ? 1 : 2;
            sched_yield();
        }
        count();
        ++*(_Atomic long *)own;
    }
    return NULL;
}

static void answer(const char *asked) {
    usleep(20000);
    pausing = 0;
    paused = 1;
    while (pausing != 3)
        sched_yield();
    printf("%d, %ld lost\n", changed(atoi(asked)), counted[0] + counted[1] - counter);
    paused = 0;
}

int main(void) {
    cpu_set_t one;
    pthread_attr_t from_the_start;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    if (pthread_attr_init(&from_the_start) || pthread_attr_setaffinity_np(&from_the_start, sizeof one, &one))
        return 1;
    for (int index = 0; index < 2; index++) {
        pthread_t thread;
        if (__rseq_size == 0 || pthread_create(&thread, &from_the_start, work, &counted[index]))
            return 1;
    }
    return serve();
}
