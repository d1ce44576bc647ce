#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __x86_64__
#include <nmmintrin.h>
#endif

struct apd_sha256 {
    EVP_MD_CTX *context;
};

enum apd_code apd_sha256_create(struct apd_sha256 **out, struct apd_err *err)
{
    struct apd_sha256 *hash = calloc(1, sizeof *hash);

    if (hash != NULL)
        hash->context = EVP_MD_CTX_new();
    if (hash == NULL || hash->context == NULL ||
        EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) != 1) {
        apd_sha256_destroy(&hash);
        return apd_fail(err, APD_NOMEM, "SHA-256 state");
    }
    *out = hash;
    return APD_OK;
}

enum apd_code apd_sha256_update(struct apd_sha256 *hash, const void *data, size_t size,
                                struct apd_err *err)
{
    if (EVP_DigestUpdate(hash->context, data, size) != 1)
        return apd_fail(err, APD_BUG, "SHA-256 update of %zu bytes failed", size);
    return APD_OK;
}

enum apd_code apd_sha256_hex(struct apd_sha256 *hash, char out[APD_SHA256_HEX], struct apd_err *err)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[32];

    if (EVP_DigestFinal_ex(hash->context, raw, NULL) != 1)
        return apd_fail(err, APD_BUG, "SHA-256 final failed");
    for (int i = 0; i < 32; i++) {
        out[2 * i] = digits[raw[i] >> 4];
        out[2 * i + 1] = digits[raw[i] & 15];
    }
    out[64] = '\0';
    return APD_OK;
}

void apd_sha256_destroy(struct apd_sha256 **hash)
{
    if (*hash == NULL)
        return;
    EVP_MD_CTX_free((*hash)->context);
    free(*hash);
    *hash = NULL;
}

enum apd_code apd_sha256_of(const void *data, size_t size, char out[APD_SHA256_HEX],
                            struct apd_err *err)
{
    struct apd_sha256 *hash = NULL;
    enum apd_code rc;

    APD_GO(apd_sha256_create(&hash, err));
    APD_GO(apd_sha256_update(hash, data, size, err));
    rc = apd_sha256_hex(hash, out, err);
done:
    apd_sha256_destroy(&hash);
    return rc;
}

enum apd_code apd_sha256_of_fd(int fd, const char *path, char out[APD_SHA256_HEX],
                               struct apd_err *err)
{
    enum { CHUNK = 1 << 20 };
    struct apd_sha256 *hash = NULL;
    unsigned char *chunk = malloc(CHUNK);
    enum apd_code rc;

    if (chunk == NULL) {
        rc = apd_fail(err, APD_NOMEM, "%d bytes to hash %s", CHUNK, path);
        goto done;
    }
    APD_GO(apd_sha256_create(&hash, err));
    for (;;) {
        ssize_t got = read(fd, chunk, CHUNK);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            rc = apd_fail_errno(err, "reading %s", path);
            goto done;
        }
        if (got == 0)
            break;
        APD_GO(apd_sha256_update(hash, chunk, (size_t)got, err));
    }
    rc = apd_sha256_hex(hash, out, err);
done:
    apd_sha256_destroy(&hash);
    free(chunk);
    return rc;
}

enum apd_code apd_sha256_of_file(const char *path, char out[APD_SHA256_HEX], struct apd_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum apd_code rc;

    if (fd < 0)
        return apd_fail_errno(err, "opening %s", path);
    rc = apd_sha256_of_fd(fd, path, out, err);
    close(fd);
    return rc;
}

/* crc_table[b]: the CRC of byte b alone. */
static uint32_t crc_table[256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void fill_crc_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;

        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
        crc_table[byte] = crc;
    }
}

static uint32_t crc_by_table(uint32_t crc, const unsigned char *at, size_t size)
{
    pthread_once(&crc_once, fill_crc_table);
    while (size-- > 0)
        crc = crc >> 8 ^ crc_table[(crc ^ *at++) & 0xFF];
    return crc;
}

#ifdef __x86_64__
/* SSE 4.2 has this very CRC as an instruction. */
__attribute__((target("sse4.2"))) static uint32_t
crc_by_instruction(uint32_t crc, const unsigned char *at, size_t size)
{
    uint64_t wide = crc;

    for (; size >= 8; size -= 8, at += 8) {
        uint64_t word;

        memcpy(&word, at, sizeof word);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    while (size-- > 0)
        crc = _mm_crc32_u8(crc, *at++);
    return crc;
}
#endif

uint32_t apd_crc32c(uint32_t crc, const void *data, size_t size)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc_by_instruction(~crc, data, size);
#endif
    return ~crc_by_table(~crc, data, size);
}
