#include "worker/index/manifest_write.h"

#include "worker/data/bytes.h"
#include "worker/data/manifest_format.h"
#include "worker/index/out_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct apd_manifest_writer {
    struct apd_out_file out;
    struct apd_manifest_info info; /* what was announced */
    struct apd_sha256 *digest;
    uint64_t put[APD_SECTIONS - 1]; /* entries so far */
    uint64_t sample_end;            /* of the shards so far */
    uint32_t shard, shard_left;     /* of the next sample; samples that are missing in it */
    uint32_t *shard_samples;        /* [shards] */
    uint32_t crc[APD_SECTIONS];
    char *names;
    uint64_t names_bytes, names_capacity;
    uint64_t root;
};

/* ---------------------------------------------------------------- digest */

enum apd_code apd_digest_begin(const struct apd_manifest_info *info, struct apd_sha256 **out,
                               struct apd_err *err)
{
    char text[128];
    int n =
        snprintf(text, sizeof text, "advprop data 1\nsamples %" PRIu64 "\nclasses %u\nshards %u\n",
                 info->samples, info->classes, info->shards);

    APD_TRY(apd_sha256_create(out, err));
    return apd_sha256_update(*out, text, (size_t)n, err);
}

enum apd_code apd_digest_class(struct apd_sha256 *digest, const char *name, struct apd_err *err)
{
    return apd_sha256_update(digest, name, strlen(name) + 1, err);
}

enum apd_code apd_digest_shard(struct apd_sha256 *digest, uint32_t samples, struct apd_err *err)
{
    uint8_t raw[4];

    apd_put32(raw, samples);
    return apd_sha256_update(digest, raw, sizeof raw, err);
}

enum apd_code apd_digest_sample(struct apd_sha256 *digest, const struct apd_manifest_sample *sample,
                                struct apd_err *err)
{
    uint8_t raw[12];

    apd_put32(apd_put32(apd_put32(raw, (uint32_t)sample->label), sample->size), sample->crc);
    return apd_sha256_update(digest, raw, sizeof raw, err);
}

/* ---------------------------------------------------------------- writing */

static enum apd_code add_name(struct apd_manifest_writer *writer, const char *name,
                              uint64_t *out_place, struct apd_err *err)
{
    size_t n = strlen(name) + 1;

    if (writer->names_capacity - writer->names_bytes < n) {
        uint64_t capacity = 2 * writer->names_capacity + n + 4096;
        char *grown = realloc(writer->names, capacity);

        if (grown == NULL)
            return apd_fail(err, APD_NOMEM, "%" PRIu64 " bytes of names", capacity);
        writer->names = grown;
        writer->names_capacity = capacity;
    }
    memcpy(writer->names + writer->names_bytes, name, n);
    *out_place = writer->names_bytes;
    writer->names_bytes += n;
    return APD_OK;
}

enum apd_code apd_manifest_create(const char *path, const struct apd_manifest_info *info,
                                  struct apd_manifest_writer **out, struct apd_err *err)
{
    static const uint8_t space[APD_MANIFEST_HEADER];
    struct apd_manifest_writer *writer = calloc(1, sizeof *writer);
    enum apd_code rc;

    if (writer != NULL)
        writer->shard_samples = calloc((size_t)info->shards + 1, sizeof *writer->shard_samples);
    if (writer == NULL || writer->shard_samples == NULL) {
        rc = apd_fail(err, APD_NOMEM, "writing %s", path);
        goto done;
    }
    writer->info = *info;
    APD_GO(add_name(writer, info->root, &writer->root, err));
    APD_GO(apd_digest_begin(info, &writer->digest, err));
    APD_GO(apd_out_open(&writer->out, path, err));
    APD_GO(apd_out_write(&writer->out, space, sizeof space, err)); /* the header comes last */
    *out = writer;
    writer = NULL;
done:
    apd_manifest_writer_destroy(&writer);
    return rc;
}

static enum apd_code put(struct apd_manifest_writer *writer, enum apd_manifest_section section,
                         const void *data, size_t size, struct apd_err *err)
{
    writer->crc[section] = apd_crc32c(writer->crc[section], data, size);
    return apd_out_write(&writer->out, data, size, err);
}

static enum apd_code out_of_order(const struct apd_manifest_writer *writer, struct apd_err *err)
{
    return apd_fail(err, APD_BUG, "%s: more entries than announced, or in another order",
                    writer->out.path);
}

enum apd_code apd_manifest_put_class(struct apd_manifest_writer *writer, const char *name,
                                     struct apd_err *err)
{
    uint8_t raw[APD_MANIFEST_CLASS];
    uint64_t place = 0;

    if (writer->put[APD_SECTION_CLASSES]++ >= writer->info.classes)
        return out_of_order(writer, err);
    APD_TRY(add_name(writer, name, &place, err));
    apd_put64(raw, place);
    APD_TRY(apd_digest_class(writer->digest, name, err));
    return put(writer, APD_SECTION_CLASSES, raw, sizeof raw, err);
}

enum apd_code apd_manifest_put_shard(struct apd_manifest_writer *writer,
                                     const struct apd_manifest_shard *shard, struct apd_err *err)
{
    uint64_t index = writer->put[APD_SECTION_SHARDS]++, place = writer->root;
    uint8_t raw[APD_MANIFEST_SHARD];

    if (writer->put[APD_SECTION_CLASSES] != writer->info.classes || index >= writer->info.shards)
        return out_of_order(writer, err);
    /* A folder's shards share the root's text for their path, which readers do not use. */
    if (writer->info.kind == APD_MANIFEST_TAR)
        APD_TRY(add_name(writer, shard->path, &place, err));
    apd_put64(raw + APD_MS_FIRST, writer->sample_end);
    apd_put32(raw + APD_MS_SAMPLES, shard->samples);
    apd_put32(raw + APD_MS_LEFT_OUT, shard->left_out);
    apd_put64(raw + APD_MS_BYTES, shard->bytes);
    apd_put64(raw + APD_MS_STAMP, shard->stamp);
    apd_put64(raw + APD_MS_PATH, place);
    memcpy(raw + APD_MS_SHA256, shard->sha256, APD_SHA256_HEX - 1);
    writer->shard_samples[index] = shard->samples;
    writer->sample_end += shard->samples;
    APD_TRY(apd_digest_shard(writer->digest, shard->samples, err));
    return put(writer, APD_SECTION_SHARDS, raw, sizeof raw, err);
}

enum apd_code apd_manifest_put_sample(struct apd_manifest_writer *writer,
                                      const struct apd_manifest_sample *sample, struct apd_err *err)
{
    uint64_t index = writer->put[APD_SECTION_RECORDS]++, position = sample->offset;
    uint8_t raw[APD_MANIFEST_RECORD];

    if (writer->put[APD_SECTION_SHARDS] != writer->info.shards || index >= writer->sample_end)
        return out_of_order(writer, err);
    if (index == 0)
        writer->shard_left = writer->shard_samples[0];
    while (writer->shard_left == 0)
        writer->shard_left = writer->shard_samples[++writer->shard];
    writer->shard_left--;
    if (writer->info.kind == APD_MANIFEST_FOLDER)
        APD_TRY(add_name(writer, sample->path, &position, err));
    apd_put64(raw + APD_MR_POSITION, position);
    apd_put32(raw + APD_MR_SIZE, sample->size);
    apd_put32(raw + APD_MR_LABEL, (uint32_t)sample->label);
    apd_put32(raw + APD_MR_CRC, sample->crc);
    apd_put32(raw + APD_MR_SHARD, writer->shard);
    APD_TRY(apd_digest_sample(writer->digest, sample, err));
    return put(writer, APD_SECTION_RECORDS, raw, sizeof raw, err);
}

static void fill_header(const struct apd_manifest_writer *writer, const char *digest,
                        uint8_t header[APD_MANIFEST_HEADER])
{
    memset(header, 0, APD_MANIFEST_HEADER);
    memcpy(header + APD_MH_MAGIC, APD_MANIFEST_MAGIC, 8);
    apd_put32(header + APD_MH_VERSION, APD_MANIFEST_VERSION);
    apd_put32(header + APD_MH_KIND, writer->info.kind);
    apd_put64(header + APD_MH_SAMPLES, writer->info.samples);
    apd_put32(header + APD_MH_CLASSES, writer->info.classes);
    apd_put32(header + APD_MH_SHARDS, writer->info.shards);
    apd_put64(header + APD_MH_NAMES_BYTES, writer->names_bytes);
    apd_put64(header + APD_MH_LEFT_OUT, writer->info.left_out);
    apd_put64(header + APD_MH_ROOT, writer->root);
    memcpy(header + APD_MH_DIGEST, digest, APD_SHA256_HEX - 1);
    for (int s = 0; s < APD_SECTIONS; s++)
        apd_put32(header + APD_MH_SECTION_CRC + 4 * s, writer->crc[s]);
    apd_put32(header + APD_MH_CRC, apd_crc32c(0, header, APD_MH_CRC));
}

enum apd_code apd_manifest_commit(struct apd_manifest_writer *writer,
                                  char out_digest[APD_SHA256_HEX], struct apd_err *err)
{
    uint8_t header[APD_MANIFEST_HEADER];
    char digest[APD_SHA256_HEX];

    if (writer->put[APD_SECTION_RECORDS] != writer->info.samples ||
        writer->sample_end != writer->info.samples)
        return apd_fail(err, APD_BUG,
                        "%s: %" PRIu64 " samples put, %" PRIu64 " in shards, %" PRIu64 " announced",
                        writer->out.path, writer->put[APD_SECTION_RECORDS], writer->sample_end,
                        writer->info.samples);
    APD_TRY(put(writer, APD_SECTION_NAMES, writer->names, writer->names_bytes, err));
    APD_TRY(apd_sha256_hex(writer->digest, digest, err));
    fill_header(writer, digest, header);
    APD_TRY(apd_out_rewind(&writer->out, err));
    APD_TRY(apd_out_write(&writer->out, header, sizeof header, err));
    APD_TRY(apd_out_commit(&writer->out, err));
    if (out_digest != NULL)
        memcpy(out_digest, digest, sizeof digest);
    return APD_OK;
}

void apd_manifest_writer_destroy(struct apd_manifest_writer **writer)
{
    if (*writer == NULL)
        return;
    apd_out_fini(&(*writer)->out);
    apd_sha256_destroy(&(*writer)->digest);
    free((*writer)->shard_samples);
    free((*writer)->names);
    free(*writer);
    *writer = NULL;
}
