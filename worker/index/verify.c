#include "worker/index/verify.h"

#include "worker/index/manifest_write.h"
#include "worker/index/parallel.h"

#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct check {
    const struct apd_verify_settings *settings;
    const struct apd_manifest_info *info;
    pthread_mutex_t lock;
    uint64_t differences;
};

static void differ(struct check *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void differ(struct check *check, const char *format, ...)
{
    char line[PATH_MAX + 512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    pthread_mutex_lock(&check->lock);
    check->differences++;
    check->settings->differ(check->settings->context, line);
    pthread_mutex_unlock(&check->lock);
}

/* What is wrong with the data is a difference, anything else ends the check. */
static enum apd_code difference_or_failure(struct check *check, const struct apd_err *err)
{
    if (err->code != APD_DATA && err->code != APD_IO)
        return err->code;
    differ(check, "%s", err->msg);
    return APD_OK;
}

static void compare_sha256(struct check *check, const char *what, const char *found,
                           const char *expected)
{
    if (strcmp(found, expected) != 0)
        differ(check, "%s: SHA-256 is %s, expected %s", what, found, expected);
}

static void compare_sample(struct check *check, uint64_t sample, const char *path,
                           const struct apd_manifest_sample *found,
                           const struct apd_manifest_sample *expected)
{
    if (found->offset != expected->offset)
        differ(check, "%s: sample %" PRIu64 " is at offset %" PRIu64 ", expected %" PRIu64, path,
               sample, found->offset, expected->offset);
    if (found->label != expected->label)
        differ(check, "%s: sample %" PRIu64 " has label %d, expected %d", path, sample,
               found->label, expected->label);
    if (found->size != expected->size)
        differ(check, "%s: sample %" PRIu64 " has %u bytes, expected %u", path, sample, found->size,
               expected->size);
    if (found->crc != expected->crc)
        differ(check,
               "%s: sample %" PRIu64 " at offset %" PRIu64 " has CRC-32C %08x, expected %08x", path,
               sample, expected->offset, found->crc, expected->crc);
}

static enum apd_code check_tar(struct check *check, const struct apd_manifest_shard *shard,
                               struct apd_err *err)
{
    struct apd_shard_content content = {0};
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", check->info->root, shard->path);
    if (apd_shard_read_tar(path, check->settings->reading, &content, err) != APD_OK) {
        apd_shard_content_fini(&content);
        return difference_or_failure(check, err);
    }
    if (content.bytes != shard->bytes)
        differ(check, "%s has %" PRIu64 " bytes, expected %" PRIu64, path, content.bytes,
               shard->bytes);
    if (content.samples != shard->samples)
        differ(check, "%s has %zu samples, expected %u", path, content.samples, shard->samples);
    for (uint32_t i = 0; i < shard->samples && i < content.samples; i++) {
        struct apd_manifest_sample expected;

        apd_manifest_sample(check->settings->manifest, shard->first_sample + i, &expected);
        compare_sample(check, shard->first_sample + i, path, &content.sample[i], &expected);
    }
    compare_sha256(check, path, content.sha256, shard->sha256);
    apd_shard_content_fini(&content);
    return APD_OK;
}

/* *out_read: 0 if the file could not be read, which is a difference. */
static enum apd_code check_file(struct check *check, uint64_t sample, struct apd_sha256 *hash,
                                int *out_read, struct apd_err *err)
{
    struct apd_manifest_sample expected, found;
    char path[PATH_MAX];
    struct stat st;

    apd_manifest_sample(check->settings->manifest, sample, &expected);
    (void)snprintf(path, sizeof path, "%s/%s", check->info->root, expected.path);
    *out_read =
        apd_shard_read_file(path, check->settings->reading, hash, &found, &st, err) == APD_OK;
    if (!*out_read)
        return difference_or_failure(check, err);
    found.label = expected.label; /* of the folder's name, which is in the path */
    compare_sample(check, sample, path, &found, &expected);
    return APD_OK;
}

static enum apd_code check_files(struct check *check, uint32_t number,
                                 const struct apd_manifest_shard *shard, struct apd_err *err)
{
    struct apd_sha256 *hash = NULL;
    char sha256[APD_SHA256_HEX], what[64];
    int all = 1, one;
    enum apd_code rc;

    APD_GO(apd_sha256_create(&hash, err));
    for (uint32_t i = 0; i < shard->samples; i++) {
        APD_GO(check_file(check, shard->first_sample + i, hash, &one, err));
        all = all && one;
    }
    APD_GO(apd_sha256_hex(hash, sha256, err));
    (void)snprintf(what, sizeof what, "shard %u (samples %" PRIu64 " to %" PRIu64 ")", number,
                   shard->first_sample, shard->first_sample + shard->samples - 1);
    if (all)
        compare_sha256(check, what, sha256, shard->sha256);
done:
    apd_sha256_destroy(&hash);
    return rc;
}

static enum apd_code check_shard(void *context, size_t i, struct apd_err *err)
{
    struct check *check = context;
    struct apd_manifest_shard shard;

    apd_manifest_shard(check->settings->manifest, (uint32_t)i, &shard);
    return check->info->kind == APD_MANIFEST_TAR ? check_tar(check, &shard, err)
                                                 : check_files(check, (uint32_t)i, &shard, err);
}

static enum apd_code check_digest(struct check *check, struct apd_err *err)
{
    const struct apd_manifest *manifest = check->settings->manifest;
    const struct apd_manifest_info *info = check->info;
    struct apd_sha256 *digest = NULL;
    char found[APD_SHA256_HEX];
    enum apd_code rc;

    APD_GO(apd_digest_begin(info, &digest, err));
    for (uint32_t i = 0; i < info->classes; i++)
        APD_GO(apd_digest_class(digest, apd_manifest_class(manifest, i), err));
    for (uint32_t i = 0; i < info->shards; i++) {
        struct apd_manifest_shard shard;

        apd_manifest_shard(manifest, i, &shard);
        APD_GO(apd_digest_shard(digest, shard.samples, err));
    }
    for (uint64_t i = 0; i < info->samples; i++) {
        struct apd_manifest_sample sample;

        apd_manifest_sample(manifest, i, &sample);
        APD_GO(apd_digest_sample(digest, &sample, err));
    }
    APD_GO(apd_sha256_hex(digest, found, err));
    if (strcmp(found, info->digest) != 0)
        differ(check, "the manifest's digest is %s, expected %s", info->digest, found);
done:
    apd_sha256_destroy(&digest);
    return rc;
}

enum apd_code apd_verify(const struct apd_verify_settings *settings, uint64_t *out_differences,
                         struct apd_err *err)
{
    struct check check = {.settings = settings,
                          .info = apd_manifest_info(settings->manifest),
                          .lock = PTHREAD_MUTEX_INITIALIZER};
    struct apd_parallel work = {.count = check.info->shards,
                                .threads = settings->threads,
                                .body = check_shard,
                                .context = &check,
                                .stop = settings->reading->stop,
                                .tick = settings->tick,
                                .tick_context = settings->context};
    enum apd_code rc = check_digest(&check, err);

    if (rc == APD_OK)
        rc = apd_parallel_run(&work, err);
    pthread_mutex_destroy(&check.lock);
    *out_differences = check.differences;
    return rc;
}
