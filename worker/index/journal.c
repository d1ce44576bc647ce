#include "worker/index/journal.h"

#include "base/fs.h"
#include "worker/data/bytes.h"
#include "worker/data/regular.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A block: this header, then `samples` entries. */
enum {
    MAGIC = 0, /* "APDJ", with the version in it */
    SAMPLES = 4,
    STAMP = 8,
    BYTES = 16,
    LEFT_OUT = 24,
    SHA256 = 32, /* 64 hex digits */
    CRC = 96,    /* of the block but these 4 bytes */
    HEADER = 100,

    ENTRY_OFFSET = 0,
    ENTRY_SIZE = 8,
    ENTRY_LABEL = 12,
    ENTRY_CRC = 16,
    ENTRY = 20,
};

#define BLOCK_MAGIC UINT32_C(0x314a5041) /* "APJ1" */

struct block {
    uint64_t stamp, offset, size;
};

struct apd_journal {
    char *path;
    int fd, locked;
    pthread_mutex_t lock; /* of all below, against other appends */
    uint64_t end;
    struct block *block;
    size_t count, capacity;
    int sorted; /* by stamp */
};

static enum apd_code note_block(struct apd_journal *journal, uint64_t stamp, uint64_t size,
                                struct apd_err *err)
{
    if (journal->count == journal->capacity) {
        size_t capacity = journal->capacity > 0 ? 2 * journal->capacity : 256;
        struct block *grown = realloc(journal->block, capacity * sizeof *grown);

        if (grown == NULL)
            return apd_fail(err, APD_NOMEM, "%zu blocks of %s", capacity, journal->path);
        journal->block = grown;
        journal->capacity = capacity;
    }
    journal->block[journal->count++] =
        (struct block){.stamp = stamp, .offset = journal->end, .size = size};
    journal->end += size;
    journal->sorted = 0;
    return APD_OK;
}

static uint32_t block_crc(const uint8_t *block, uint64_t size)
{
    return apd_crc32c(apd_crc32c(0, block, CRC), block + HEADER, size - HEADER);
}

/* Reads the blocks up to the first that is not whole. */
static enum apd_code load(struct apd_journal *journal, uint64_t bytes, struct apd_err *err)
{
    enum apd_code rc = APD_OK;
    uint8_t header[HEADER];
    uint8_t *block = NULL;

    while (bytes - journal->end >= HEADER) {
        uint64_t size;

        APD_GO(apd_regular_read(journal->fd, journal->path, journal->end, header, HEADER, err));
        size = HEADER + (uint64_t)apd_get32(header + SAMPLES) * ENTRY;
        if (apd_get32(header + MAGIC) != BLOCK_MAGIC || size > bytes - journal->end)
            break;
        free(block);
        block = malloc(size);
        if (block == NULL) {
            rc = apd_fail(err, APD_NOMEM, "%" PRIu64 " bytes of %s", size, journal->path);
            goto done;
        }
        APD_GO(apd_regular_read(journal->fd, journal->path, journal->end, block, size, err));
        if (block_crc(block, size) != apd_get32(block + CRC))
            break;
        APD_GO(note_block(journal, apd_get64(block + STAMP), size, err));
    }
    if (ftruncate(journal->fd, (off_t)journal->end) != 0)
        rc = apd_fail_errno(err, "cutting %s to %" PRIu64 " bytes", journal->path, journal->end);
done:
    free(block);
    return rc;
}

enum apd_code apd_journal_open(const char *path, struct apd_journal **out, struct apd_err *err)
{
    struct apd_journal *journal = calloc(1, sizeof *journal);
    enum apd_code rc;
    struct stat st;

    if (journal == NULL || (journal->path = strdup(path)) == NULL) {
        free(journal);
        return apd_fail(err, APD_NOMEM, "journal %s", path);
    }
    pthread_mutex_init(&journal->lock, NULL);
    journal->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
    if (journal->fd < 0) {
        rc = apd_fail_errno(err, "creating %s", path);
        goto done;
    }
    if (flock(journal->fd, LOCK_EX | LOCK_NB) != 0) {
        rc = errno == EWOULDBLOCK
                 ? apd_fail(err, APD_CONFIG, "%s: another advprop data index writes it", path)
                 : apd_fail_errno(err, "locking %s", path);
        goto done;
    }
    journal->locked = 1;
    if (fstat(journal->fd, &st) != 0) {
        rc = apd_fail_errno(err, "%s", path);
        goto done;
    }
    APD_GO(load(journal, (uint64_t)st.st_size, err));
    *out = journal;
    journal = NULL;
done:
    apd_journal_close(&journal);
    return rc;
}

enum apd_code apd_journal_append(struct apd_journal *journal, uint64_t stamp,
                                 const struct apd_shard_content *content, struct apd_err *err)
{
    uint64_t size = HEADER + (uint64_t)content->samples * ENTRY;
    uint8_t *block = malloc(size);
    enum apd_code rc;

    if (block == NULL)
        return apd_fail(err, APD_NOMEM, "%" PRIu64 " bytes for %s", size, journal->path);
    apd_put32(block + MAGIC, BLOCK_MAGIC);
    apd_put32(block + SAMPLES, (uint32_t)content->samples);
    apd_put64(block + STAMP, stamp);
    apd_put64(block + BYTES, content->bytes);
    apd_put64(block + LEFT_OUT, content->left_out);
    memcpy(block + SHA256, content->sha256, APD_SHA256_HEX - 1);
    for (size_t i = 0; i < content->samples; i++) {
        const struct apd_manifest_sample *sample = &content->sample[i];
        uint8_t *entry = block + HEADER + i * ENTRY;

        apd_put64(entry + ENTRY_OFFSET, sample->offset);
        apd_put32(entry + ENTRY_SIZE, sample->size);
        apd_put32(entry + ENTRY_LABEL, (uint32_t)sample->label);
        apd_put32(entry + ENTRY_CRC, sample->crc);
    }
    apd_put32(block + CRC, block_crc(block, size));

    pthread_mutex_lock(&journal->lock);
    rc = lseek(journal->fd, (off_t)journal->end, SEEK_SET) < 0
             ? apd_fail_errno(err, "%s", journal->path)
             : apd_write_all(journal->fd, block, size, journal->path, err);
    if (rc == APD_OK)
        rc = note_block(journal, stamp, size, err);
    pthread_mutex_unlock(&journal->lock);
    free(block);
    return rc;
}

static int by_stamp(const void *a, const void *b)
{
    uint64_t left = ((const struct block *)a)->stamp, right = ((const struct block *)b)->stamp;

    return (left > right) - (left < right);
}

static const struct block *find(struct apd_journal *journal, uint64_t stamp)
{
    struct block key = {.stamp = stamp};

    if (journal->count == 0)
        return NULL;
    if (!journal->sorted)
        qsort(journal->block, journal->count, sizeof *journal->block, by_stamp);
    journal->sorted = 1;
    return bsearch(&key, journal->block, journal->count, sizeof *journal->block, by_stamp);
}

int apd_journal_has(struct apd_journal *journal, uint64_t stamp)
{
    return find(journal, stamp) != NULL;
}

enum apd_code apd_journal_read(struct apd_journal *journal, uint64_t stamp,
                               struct apd_shard_content *out, struct apd_err *err)
{
    const struct block *found = find(journal, stamp);
    enum apd_code rc;
    uint8_t *block;
    uint32_t samples;

    *out = (struct apd_shard_content){0};
    if (found == NULL)
        return apd_fail(err, APD_BUG, "%s: no block %016" PRIx64, journal->path, stamp);
    block = malloc(found->size);
    if (block == NULL)
        return apd_fail(err, APD_NOMEM, "%" PRIu64 " bytes of %s", found->size, journal->path);
    APD_GO(apd_regular_read(journal->fd, journal->path, found->offset, block, found->size, err));
    out->bytes = apd_get64(block + BYTES);
    out->left_out = apd_get64(block + LEFT_OUT);
    memcpy(out->sha256, block + SHA256, APD_SHA256_HEX - 1);
    samples = apd_get32(block + SAMPLES);
    for (uint32_t i = 0; i < samples; i++) {
        const uint8_t *entry = block + HEADER + (uint64_t)i * ENTRY;
        struct apd_manifest_sample sample = {
            .offset = apd_get64(entry + ENTRY_OFFSET),
            .size = apd_get32(entry + ENTRY_SIZE),
            .label = (int32_t)apd_get32(entry + ENTRY_LABEL),
            .crc = apd_get32(entry + ENTRY_CRC),
        };

        APD_GO(apd_shard_content_add(out, &sample, err));
    }
done:
    free(block);
    return rc;
}

enum apd_code apd_journal_remove(struct apd_journal *journal, struct apd_err *err)
{
    return unlink(journal->path) == 0 ? APD_OK : apd_fail_errno(err, "removing %s", journal->path);
}

void apd_journal_close(struct apd_journal **journal)
{
    if (*journal == NULL)
        return;
    if ((*journal)->locked && (*journal)->count == 0)
        (void)unlink((*journal)->path);
    if ((*journal)->fd >= 0)
        close((*journal)->fd);
    pthread_mutex_destroy(&(*journal)->lock);
    free((*journal)->block);
    free((*journal)->path);
    free(*journal);
    *journal = NULL;
}
