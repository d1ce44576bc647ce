#include "worker/data/images.h"

#include "base/log.h"
#include "worker/data/manifest.h"
#include "worker/data/regular.h"
#include "worker/data/shard_files.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    OPEN_SHARDS = 64,
    TRIES = 9,
    FIRST_PAUSE_MS = 50, /* doubled from try to try: 13 s in all */
};

struct images {
    struct apd_manifest *manifest;
    struct apd_shard_files *files; /* of tar shards */
};

static enum apd_code fill_shards(struct apd_dataset *dataset, const struct images *images,
                                 struct apd_err *err)
{
    dataset->shard_samples = calloc(dataset->shards, sizeof *dataset->shard_samples);
    if (dataset->shard_samples == NULL)
        return apd_fail(err, APD_NOMEM, "%u shards", dataset->shards);
    for (uint32_t s = 0; s < dataset->shards; s++) {
        struct apd_manifest_shard shard;

        apd_manifest_shard(images->manifest, s, &shard);
        dataset->shard_samples[s] = shard.samples;
    }
    return APD_OK;
}

static enum apd_code images_open(struct apd_dataset *dataset, const char *path,
                                 enum apd_split split, uint32_t classes, struct apd_err *err)
{
    struct images *images = calloc(1, sizeof *images);
    const struct apd_manifest_info *info;

    (void)split; /* a manifest is of one split */
    if (images == NULL)
        return apd_fail(err, APD_NOMEM, "data set %s", path);
    dataset->state = images;
    APD_TRY(apd_manifest_open(path, &images->manifest, err));
    info = apd_manifest_info(images->manifest);
    if (info->samples == 0)
        return apd_fail(err, APD_DATA, "%s: no samples", path);
    if (classes != 0 && info->classes > classes)
        return apd_fail(err, APD_DATA, "%s: %u classes, expected at most %u", path, info->classes,
                        classes);
    if (info->kind == APD_MANIFEST_TAR)
        APD_TRY(apd_shard_files_create(OPEN_SHARDS, &images->files, err));
    dataset->encoded = 1;
    dataset->samples = info->samples;
    dataset->classes = classes != 0 ? classes : info->classes;
    dataset->shards = info->shards;
    memcpy(dataset->digest, info->digest, sizeof dataset->digest);
    return fill_shards(dataset, images, err);
}

static void images_close(struct apd_dataset *dataset)
{
    struct images *images = dataset->state;

    if (images == NULL)
        return;
    apd_shard_files_destroy(&images->files);
    apd_manifest_close(&images->manifest);
    free(images);
}

static enum apd_code reserve(struct apd_buffer *buffer, size_t size, struct apd_err *err)
{
    uint8_t *grown;

    if (size <= buffer->capacity)
        return APD_OK;
    grown = realloc(buffer->bytes, size);
    if (grown == NULL)
        return apd_fail(err, APD_NOMEM, "%zu bytes for an image", size);
    buffer->bytes = grown;
    buffer->capacity = size;
    return APD_OK;
}

/* One try. */
static enum apd_code read_once(struct images *images, const struct apd_manifest_sample *sample,
                               const char *path, uint8_t *dst, struct apd_err *err)
{
    enum apd_code rc;
    int fd;

    if (images->files == NULL)
        APD_TRY(apd_regular_open(path, &fd, NULL, err));
    else
        APD_TRY(apd_shard_files_take(images->files, sample->shard, path, &fd, err));
    rc = apd_regular_read(fd, path, sample->offset, dst, sample->size, err);
    if (images->files == NULL)
        close(fd);
    else
        apd_shard_files_give(images->files, fd, rc != APD_OK);
    return rc;
}

/* Whether a file server that comes back, or a little patience, may mend it. */
static int may_pass(const struct apd_err *err)
{
    switch (err->sys) {
    case EIO:
    case ESTALE:
    case EAGAIN:
    case EBUSY:
    case ETIMEDOUT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return 1;
    default:
        return 0;
    }
}

/* `ms` and up to half as much again, so that workers do not come back all at once. */
static void pause_for(long ms, uint64_t sample, int attempt)
{
    long jitter = (long)((sample * 2654435761u + (uint64_t)attempt * 40503u) % 1000) * ms / 2000;
    struct timespec span = {(ms + jitter) / 1000, (ms + jitter) % 1000 * 1000000};

    while (nanosleep(&span, &span) != 0 && errno == EINTR)
        ;
}

static enum apd_code read_patiently(struct images *images, uint64_t number,
                                    const struct apd_manifest_sample *sample, const char *path,
                                    uint8_t *dst, struct apd_err *err)
{
    long pause_ms = FIRST_PAUSE_MS;
    enum apd_code rc = APD_OK;

    for (int attempt = 1; attempt <= TRIES; attempt++, pause_ms *= 2) {
        rc = read_once(images, sample, path, dst, err);
        if (rc != APD_IO || !may_pass(err))
            break;
        if (attempt < TRIES) {
            apd_log(APD_LOG_WARN, "reading again", "sample=%" PRIu64 " try=%d error=\"%s\"", number,
                    attempt, err->msg);
            pause_for(pause_ms, number, attempt);
        }
    }
    if (rc == APD_IO && !may_pass(err))
        rc = err->code = APD_DATA; /* gone, or not ours to read: this file's own trouble */
    return rc;
}

static enum apd_code images_fetch(const struct apd_dataset *dataset, uint64_t number,
                                  struct apd_buffer *buffer, struct apd_stored *out,
                                  struct apd_err *err)
{
    struct images *images = dataset->state;
    struct apd_manifest_sample sample;
    const char *path = buffer->name;
    uint32_t crc;
    int n;

    apd_manifest_sample(images->manifest, number, &sample);
    n = snprintf(buffer->name, sizeof buffer->name, "%s/%s",
                 apd_manifest_info(images->manifest)->root, sample.path);
    if (n < 0 || (size_t)n >= sizeof buffer->name)
        return apd_fail(err, APD_DATA, "a path of %d bytes", n);
    APD_TRY(reserve(buffer, sample.size, err));
    APD_TRY(read_patiently(images, number, &sample, path, buffer->bytes, err));
    crc = apd_crc32c(0, buffer->bytes, sample.size);
    if (crc != sample.crc)
        return apd_fail(err, APD_DATA,
                        "%s: %u bytes at offset %" PRIu64
                        ": CRC-32C is %08x, expected %08x as when "
                        "it was indexed",
                        path, sample.size, sample.offset, crc, sample.crc);
    *out = (struct apd_stored){buffer->bytes, sample.size, sample.label, path};
    return APD_OK;
}

/* A manifest of a set whose classes had no names has their numbers or "". */
static const char *images_class(const struct apd_dataset *dataset, uint32_t label)
{
    const struct images *images = dataset->state;
    const struct apd_manifest_info *info = apd_manifest_info(images->manifest);
    const char *name = label < info->classes ? apd_manifest_class(images->manifest, label) : "";

    return name[0] != '\0' ? name : NULL;
}

static void images_sample(const struct apd_dataset *dataset, uint64_t number, char *out,
                          size_t size)
{
    const struct images *images = dataset->state;
    struct apd_manifest_sample sample;

    apd_manifest_sample(images->manifest, number, &sample);
    if (apd_manifest_info(images->manifest)->kind == APD_MANIFEST_FOLDER)
        (void)snprintf(out, size, "%s", sample.path);
    else
        (void)snprintf(out, size, "%s@%" PRIu64, sample.path, sample.offset);
}

const struct apd_dataset_ops apd_images_ops = {
    .format = "images",
    .open = images_open,
    .fetch = images_fetch,
    .class_name = images_class,
    .sample_name = images_sample,
    .close = images_close,
};
