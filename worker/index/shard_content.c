#include "worker/index/shard_content.h"

#include "worker/data/regular.h"
#include "worker/data/tar.h"
#include "worker/index/webdataset.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 64 << 10, TEXT_CAP = 1 << 20 };

static enum apd_code check_stop(const struct apd_reading *reading, struct apd_err *err)
{
    if (reading->stop != NULL && atomic_load(reading->stop) != 0)
        return apd_fail(err, APD_CANCELED, "stopped by a signal");
    return APD_OK;
}

enum apd_code apd_shard_content_add(struct apd_shard_content *content,
                                    const struct apd_manifest_sample *sample, struct apd_err *err)
{
    if (content->samples == UINT32_MAX)
        return apd_fail(err, APD_DATA, "more than %u samples in a shard", UINT32_MAX);
    if (content->samples == content->capacity) {
        size_t capacity = content->capacity > 0 ? 2 * content->capacity : APD_SHARD_SAMPLES;
        struct apd_manifest_sample *grown =
            realloc(content->sample, capacity * sizeof *content->sample);

        if (grown == NULL)
            return apd_fail(err, APD_NOMEM, "%zu samples", capacity);
        content->sample = grown;
        content->capacity = capacity;
    }
    content->sample[content->samples++] = *sample;
    return APD_OK;
}

void apd_shard_content_fini(struct apd_shard_content *content)
{
    free(content->sample);
    apd_names_fini(&content->problems);
    *content = (struct apd_shard_content){0};
}

/* ---------------------------------------------------------------- a file of a folder */

enum apd_code apd_shard_read_file(const char *path, struct apd_reading *reading,
                                  struct apd_sha256 *hash, struct apd_manifest_sample *out,
                                  struct stat *st, struct apd_err *err)
{
    uint8_t chunk[CHUNK];
    enum apd_code rc = APD_OK;
    uint64_t size = 0;
    uint32_t crc = 0;
    int fd;

    APD_TRY(check_stop(reading, err));
    APD_TRY(apd_regular_open(path, &fd, st, err));
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof chunk);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            rc = apd_fail_errno(err, "reading %s at offset %" PRIu64, path, size);
            goto done;
        }
        if (got == 0)
            break;
        size += (uint64_t)got;
        crc = apd_crc32c(crc, chunk, (size_t)got);
        APD_GO(apd_sha256_update(hash, chunk, (size_t)got, err));
    }
    if (size > APD_IMAGE_BYTES_MAX) {
        rc = apd_fail(err, APD_DATA, "%s: %" PRIu64 " bytes, expected at most %d", path, size,
                      APD_IMAGE_BYTES_MAX);
        goto done;
    }
    *out = (struct apd_manifest_sample){.size = (uint32_t)size, .crc = crc};
    atomic_fetch_add(&reading->samples, 1);
    atomic_fetch_add(&reading->bytes, size);
done:
    close(fd);
    return rc;
}

/* ---------------------------------------------------------------- a tar file */

/* The sample whose members are being read. */
struct group {
    char *key; /* NULL: none yet */
    size_t key_size;
    struct apd_manifest_sample sample;
    int images;
    int32_t cls, json; /* labels, -1: none */
    const char *wrong; /* NULL: nothing so far */
};

struct tar_shard {
    struct apd_tar *tar;
    struct apd_reading *reading;
    struct apd_shard_content *out;
    struct group group;
};

static const char *judge(const struct group *group)
{
    int has_label = group->cls >= 0 || group->json >= 0;

    if (group->images == 0) /* without either it is no sample, whatever is wrong with it */
        return has_label ? "no image beside its label" : NULL;
    if (group->wrong != NULL)
        return group->wrong;
    if (group->images > 1)
        return "more than one image";
    return has_label ? NULL : "no label (.cls, or cls or label in .json) beside its image";
}

static enum apd_code end_group(struct tar_shard *shard, struct apd_err *err)
{
    struct group *group = &shard->group;
    enum apd_code rc = APD_OK;
    const char *wrong;

    if (group->key == NULL)
        return APD_OK;
    wrong = judge(group);
    if (wrong != NULL) {
        char text[512];
        int n = snprintf(text, sizeof text, "%s: %s", group->key, wrong);

        shard->out->left_out++;
        APD_GO(apd_names_add(&shard->out->problems, text, (size_t)n, err));
    } else if (group->images == 1) {
        group->sample.label = group->cls >= 0 ? group->cls : group->json;
        APD_GO(apd_shard_content_add(shard->out, &group->sample, err));
        atomic_fetch_add(&shard->reading->samples, 1);
    }
done:
    free(group->key);
    *group = (struct group){0};
    return rc;
}

static enum apd_code begin_group(struct tar_shard *shard, const char *name, size_t key_size,
                                 struct apd_err *err)
{
    APD_TRY(end_group(shard, err));
    shard->group = (struct group){.key_size = key_size, .cls = -1, .json = -1};
    shard->group.key = strndup(name, key_size);
    if (shard->group.key == NULL)
        return apd_fail(err, APD_NOMEM, "a key of %zu bytes", key_size);
    return check_stop(shard->reading, err);
}

static enum apd_code read_image(struct tar_shard *shard, const struct apd_tar_member *member,
                                struct apd_err *err)
{
    struct group *group = &shard->group;
    uint32_t crc = 0;

    group->images++;
    if (member->size == 0)
        group->wrong = "an empty image";
    if (member->size > APD_IMAGE_BYTES_MAX)
        group->wrong = "an image larger than 256 MiB";
    for (;;) {
        const uint8_t *piece;
        size_t size;

        APD_TRY(apd_tar_piece(shard->tar, &piece, &size, err));
        if (size == 0)
            break;
        crc = apd_crc32c(crc, piece, size);
    }
    group->sample = (struct apd_manifest_sample){
        .offset = member->offset, .size = (uint32_t)member->size, .crc = crc};
    return APD_OK;
}

static enum apd_code read_label(struct tar_shard *shard, const struct apd_tar_member *member,
                                enum apd_wds_role role, struct apd_err *err)
{
    struct group *group = &shard->group;
    size_t used = 0, size;
    const uint8_t *piece;
    const char *wrong;
    char *text;

    if (member->size > TEXT_CAP) {
        group->wrong = "a .cls or .json larger than 1 MiB";
        return APD_OK;
    }
    text = malloc(member->size + 1);
    if (text == NULL)
        return apd_fail(err, APD_NOMEM, "%" PRIu64 " bytes of %s", member->size, member->name);
    while (apd_tar_piece(shard->tar, &piece, &size, err) == APD_OK && size > 0) {
        memcpy(text + used, piece, size);
        used += size;
    }
    if (used < member->size) {
        free(text);
        return err->code;
    }
    wrong = role == APD_WDS_CLS ? apd_wds_label_text(text, used, &group->cls)
                                : apd_wds_label_json(text, used, &group->json);
    free(text);
    group->wrong = group->wrong != NULL ? group->wrong : wrong;
    return APD_OK;
}

static enum apd_code read_member(struct tar_shard *shard, const struct apd_tar_member *member,
                                 struct apd_err *err)
{
    struct group *group = &shard->group;
    enum apd_wds_role role;
    size_t key_size;

    if (member->skip != NULL || !apd_wds_name(member->name, &key_size, &role))
        return APD_OK;
    if (group->key == NULL || group->key_size != key_size ||
        memcmp(group->key, member->name, key_size) != 0)
        APD_TRY(begin_group(shard, member->name, key_size, err));
    if (role == APD_WDS_IMAGE)
        return read_image(shard, member, err);
    if (role == APD_WDS_CLS || role == APD_WDS_JSON)
        return read_label(shard, member, role, err);
    return APD_OK;
}

enum apd_code apd_shard_read_tar(const char *path, struct apd_reading *reading,
                                 struct apd_shard_content *out, struct apd_err *err)
{
    struct tar_shard shard = {.reading = reading, .out = out};
    const struct apd_tar_member *member;
    struct apd_sha256 *hash = NULL;
    enum apd_code rc;

    *out = (struct apd_shard_content){0};
    APD_GO(apd_sha256_create(&hash, err));
    APD_GO(apd_tar_open(path, hash, &shard.tar, err));
    for (;;) {
        APD_GO(apd_tar_next(shard.tar, &member, err));
        if (member == NULL)
            break;
        APD_GO(read_member(&shard, member, err));
        atomic_fetch_add(&reading->bytes, member->size);
    }
    APD_GO(end_group(&shard, err));
    out->bytes = apd_tar_bytes(shard.tar);
    rc = apd_sha256_hex(hash, out->sha256, err);
done:
    free(shard.group.key);
    apd_tar_close(&shard.tar);
    apd_sha256_destroy(&hash);
    return rc;
}
