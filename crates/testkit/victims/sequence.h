/* Threads of one processor that count in restartable sequences (rseq(2)): whoever is stopped in
 * one has to begin it anew, or what another one counted meanwhile is lost. */
#ifndef SEQUENCE_H
#define SEQUENCE_H

#ifndef _GNU_SOURCE
#error "the source has to ask for _GNU_SOURCE"
#endif

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/rseq.h>

/* One more, after a while. Where it begins anew lies behind the signature that the kernel looks for. */
static inline __attribute__((always_inline)) void count_in_a_sequence(volatile uint64_t *counter) {
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
                     : [counter] "+m"(*counter)
                     : [area] "r"(area), [sequence] "i"(offsetof(struct rseq, rseq_cs))
                     : "rax", "rcx", "cc", "memory");
}

/* For threads that are on one processor, the first that there is, from their first instruction
 * on: elsewhere they would count at once. Not 0 where threads have no sequences. */
static inline int on_one_processor(pthread_attr_t *there) {
    cpu_set_t mine, one;
    int first = 0;
    if (__rseq_size == 0 || sched_getaffinity(0, sizeof mine, &mine))
        return -1;
    while (first < CPU_SETSIZE - 1 && !CPU_ISSET(first, &mine))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    return pthread_attr_init(there) || pthread_attr_setaffinity_np(there, sizeof one, &one) ? -1 : 0;
}

#endif
