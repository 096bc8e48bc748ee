/* Compresses a text with liblzma once, then decompresses it for ever on
 * several threads and compares every byte. Ends with 1 at the first wrong one.
 *
 * Declares the few functions of liblzma (lzma/container.h) that it uses, so
 * that no headers are needed.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LZMA_OK = 0, LZMA_CHECK_CRC64 = 4 };
int lzma_easy_buffer_encode(uint32_t, int, const void *, const uint8_t *, size_t, uint8_t *, size_t *, size_t);
int lzma_stream_buffer_decode(uint64_t *, uint32_t, const void *, const uint8_t *, size_t *, size_t, uint8_t *,
                              size_t *, size_t);

enum { BYTES = 1 << 16, THREADS = 3 };
static uint8_t text[BYTES], encoded[BYTES * 2];
static size_t encoded_len;
static atomic_ulong rounds;
static volatile sig_atomic_t ending;

static void end(int signal) {
    (void)signal;
    ending = 1;
}

static void *decode(void *unused) {
    uint8_t *out = malloc(BYTES);
    while (out && !ending) {
        uint64_t limit = UINT64_MAX;
        size_t in_at = 0, out_at = 0;
        memset(out, 0, BYTES);
        int status = lzma_stream_buffer_decode(&limit, 0, NULL, encoded, &in_at, encoded_len, out, &out_at, BYTES);
        if (status != LZMA_OK || out_at != BYTES || memcmp(out, text, BYTES) != 0) {
            fprintf(stderr, "decoded wrongly: status %d, %zu bytes\n", status, out_at);
            exit(1);
        }
        rounds++;
    }
    free(out);
    return unused;
}

int main(void) {
    signal(SIGTERM, end);
    for (unsigned i = 0, x = 1; i < BYTES; i++) {
        x = x * 1103515245u + 12345u;
        text[i] = (uint8_t)("the quick brown fox "[i % 20] + (x >> 30));
    }
    if (lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, NULL, text, BYTES, encoded, &encoded_len, sizeof encoded) != 0)
        return 2;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, decode, NULL) != 0)
            return 2;
    while (!ending) {
        printf("rounds %lu\n", rounds);
        fflush(stdout);
        usleep(20000);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("ended well\n");
    return 0;
}
