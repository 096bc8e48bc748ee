/* Encodes a picture with libpng once, then decodes it for ever on several
 * threads and compares every pixel. Ends with 1 at the first wrong one.
 *
 * Declares the few things of libpng's simplified API (png.h, version 1 of
 * png_image) that it uses, so that no headers are needed.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    void *opaque;
    uint32_t version, width, height, format, flags, colormap_entries, warning_or_error;
    char message[64];
} png_image;
enum { PNG_IMAGE_VERSION = 1, PNG_FORMAT_RGBA = 3 };
int png_image_write_to_memory(png_image *, void *, size_t *, int, const void *, int32_t, const void *);
int png_image_begin_read_from_memory(png_image *, const void *, size_t);
int png_image_finish_read(png_image *, const void *, void *, int32_t, void *);

enum { SIDE = 96, BYTES = SIDE * SIDE * 4, THREADS = 3 };
static uint8_t picture[BYTES], encoded[BYTES * 2];
static size_t encoded_len = sizeof encoded;
static atomic_ulong rounds;
static volatile sig_atomic_t ending;

static void end(int signal) {
    (void)signal;
    ending = 1;
}

static void *decode(void *unused) {
    uint8_t *out = malloc(BYTES);
    while (out && !ending) {
        png_image image = {.version = PNG_IMAGE_VERSION};
        memset(out, 0, BYTES);
        if (!png_image_begin_read_from_memory(&image, encoded, encoded_len)) {
            fprintf(stderr, "begin: %s\n", image.message);
            exit(1);
        }
        image.format = PNG_FORMAT_RGBA;
        if (!png_image_finish_read(&image, NULL, out, 0, NULL) || memcmp(out, picture, BYTES) != 0) {
            fprintf(stderr, "decoded wrongly: %s\n", image.message);
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
        picture[i] = (uint8_t)(i / 64 + (x >> 29));
    }
    png_image image = {.version = PNG_IMAGE_VERSION, .width = SIDE, .height = SIDE, .format = PNG_FORMAT_RGBA};
    if (!png_image_write_to_memory(&image, encoded, &encoded_len, 0, picture, 0, NULL))
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
