// One of the programs of a host (crates/testkit/src/services/host.rs): answers on a
// socket, with code of libc, libcrypto and liblzma in every answer.
//
// A request is a number of four bytes, big-endian. From it follow 512 bytes, which
// are packed and unpacked again; the answer is the SHA-256 of what came out.
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// The development packages are not needed for four functions.
unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest);
int lzma_easy_buffer_encode(uint32_t preset, int check, const void *allocator, const uint8_t *in, size_t in_size,
                            uint8_t *out, size_t *out_at, size_t out_size);
int lzma_stream_buffer_decode(uint64_t *memory_limit, uint32_t flags, const void *allocator, const uint8_t *in,
                              size_t *in_at, size_t in_size, uint8_t *out, size_t *out_at, size_t out_size);

enum { SIZE = 512 };

static int answer(uint32_t number, unsigned char *digest) {
    uint8_t plain[SIZE], packed[4 * SIZE], again[SIZE];
    uint32_t state = number * 2654435761u + PROGRAM;
    for (size_t i = 0; i < SIZE; i++) {
        state = state * 1664525u + 1013904223u;
        plain[i] = (uint8_t)((state >> 24) & 0x0f);
    }
    size_t packed_size = 0, read = 0, size = 0;
    uint64_t memory = UINT64_MAX;
    if (lzma_easy_buffer_encode(0, 4, NULL, plain, SIZE, packed, &packed_size, sizeof packed)) return -1;
    if (lzma_stream_buffer_decode(&memory, 0, NULL, packed, &read, packed_size, again, &size, SIZE)) return -1;
    return size == SIZE && SHA256(again, SIZE, digest) ? 0 : -1;
}

static void *idle(void *unused) {
    for (;;) pause();
    return unused;
}

int main(int argc, char **argv) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    pthread_t second;
    if (argc != 2 || strlen(argv[1]) >= sizeof at.sun_path) return 2;
    strcpy(at.sun_path, argv[1]);
    signal(SIGPIPE, SIG_IGN);
    int listening = socket(AF_UNIX, SOCK_STREAM, 0);
    if (listening < 0 || bind(listening, (struct sockaddr *)&at, sizeof at) || listen(listening, 16)) return 1;
    if (pthread_create(&second, NULL, idle, NULL)) return 1;
    for (;;) {
        int client = accept(listening, NULL, NULL);
        if (client < 0) continue;
        uint8_t request[4], digest[32];
        while (recv(client, request, sizeof request, MSG_WAITALL) == sizeof request) {
            uint32_t number = (uint32_t)request[0] << 24 | request[1] << 16 | request[2] << 8 | request[3];
            if (answer(number, digest) || send(client, digest, sizeof digest, 0) != sizeof digest) break;
        }
        close(client);
    }
}
