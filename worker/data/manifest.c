#include "worker/data/manifest.h"

#include "worker/data/bytes.h"
#include "worker/data/manifest_format.h"
#include "worker/data/regular.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *const section_names[APD_SECTIONS] = {"class table", "shard table", "records",
                                                        "names"};

struct apd_manifest {
    struct apd_manifest_info info;
    char *path, *root; /* root: info.root if it is not in the names */
    const uint8_t *map;
    uint64_t bytes;
    const uint8_t *section[APD_SECTIONS];
    uint64_t section_bytes[APD_SECTIONS];
};

/* ---------------------------------------------------------------- checks */

static uint64_t offset_of(const struct apd_manifest *m, const uint8_t *at)
{
    return (uint64_t)(at - m->map);
}

/* The number at `at` is `found`, which is not below `below`. */
static enum apd_code refuse(const struct apd_manifest *m, const uint8_t *at, const char *what,
                            uint64_t found, uint64_t below, struct apd_err *err)
{
    return apd_fail(err, APD_DATA,
                    "%s: %s at offset %" PRIu64 " is %" PRIu64 ", expected below %" PRIu64, m->path,
                    what, offset_of(m, at), found, below);
}

static enum apd_code check_crc(const struct apd_manifest *m, const uint8_t *stated,
                               const uint8_t *data, uint64_t size, const char *what,
                               struct apd_err *err)
{
    uint32_t crc = apd_crc32c(0, data, size);

    if (crc == apd_get32(stated))
        return APD_OK;
    return apd_fail(err, APD_DATA,
                    "%s: damaged: the CRC of the %s (%" PRIu64 " bytes at offset %" PRIu64
                    ") is %08x, expected %08x",
                    m->path, what, size, offset_of(m, data), crc, apd_get32(stated));
}

static enum apd_code read_header(struct apd_manifest *m, struct apd_err *err)
{
    const uint8_t *header = m->map;
    struct apd_manifest_info *info = &m->info;
    uint32_t version, kind;

    if (memcmp(header + APD_MH_MAGIC, APD_MANIFEST_MAGIC, 8) != 0)
        return apd_fail(err, APD_DATA, "%s: no manifest: expected \"%s\" at offset 0", m->path,
                        APD_MANIFEST_MAGIC);
    version = apd_get32(header + APD_MH_VERSION);
    if (version != APD_MANIFEST_VERSION)
        return apd_fail(err, APD_DATA, "%s: version at offset %d is %u, expected %d", m->path,
                        APD_MH_VERSION, version, APD_MANIFEST_VERSION);
    APD_TRY(check_crc(m, header + APD_MH_CRC, header, APD_MH_CRC, "header", err));
    kind = apd_get32(header + APD_MH_KIND);
    if (kind != APD_MANIFEST_TAR && kind != APD_MANIFEST_FOLDER)
        return refuse(m, header + APD_MH_KIND, "kind", kind, APD_MANIFEST_FOLDER + 1, err);
    info->kind = (enum apd_manifest_kind)kind;
    info->samples = apd_get64(header + APD_MH_SAMPLES);
    info->classes = apd_get32(header + APD_MH_CLASSES);
    info->shards = apd_get32(header + APD_MH_SHARDS);
    info->left_out = apd_get64(header + APD_MH_LEFT_OUT);
    memcpy(info->digest, header + APD_MH_DIGEST, sizeof info->digest - 1);
    if (info->classes > APD_CLASSES_MAX)
        return refuse(m, header + APD_MH_CLASSES, "number of classes", info->classes,
                      APD_CLASSES_MAX + 1, err);
    return APD_OK;
}

/* Where the sections lie, which have to fill the file. */
static enum apd_code place_sections(struct apd_manifest *m, struct apd_err *err)
{
    uint64_t samples = m->info.samples, at = APD_MANIFEST_HEADER;

    m->section_bytes[APD_SECTION_CLASSES] = (uint64_t)m->info.classes * APD_MANIFEST_CLASS;
    m->section_bytes[APD_SECTION_SHARDS] = (uint64_t)m->info.shards * APD_MANIFEST_SHARD;
    if (samples > m->bytes / APD_MANIFEST_RECORD)
        return refuse(m, m->map + APD_MH_SAMPLES, "number of samples", samples,
                      m->bytes / APD_MANIFEST_RECORD + 1, err);
    m->section_bytes[APD_SECTION_RECORDS] = samples * APD_MANIFEST_RECORD;
    m->section_bytes[APD_SECTION_NAMES] = apd_get64(m->map + APD_MH_NAMES_BYTES);
    for (int s = 0; s < APD_SECTIONS; s++) {
        if (m->section_bytes[s] > m->bytes - at)
            return apd_fail(err, APD_DATA,
                            "%s: the %s at offset %" PRIu64 " have %" PRIu64
                            " bytes, the file ends at %" PRIu64,
                            m->path, section_names[s], at, m->section_bytes[s], m->bytes);
        m->section[s] = m->map + at;
        at += m->section_bytes[s];
    }
    if (at != m->bytes)
        return apd_fail(err, APD_DATA, "%s: trailing bytes at offset %" PRIu64 ", expected the end",
                        m->path, at);
    for (int s = 0; s < APD_SECTIONS; s++)
        APD_TRY(check_crc(m, m->map + APD_MH_SECTION_CRC + 4 * s, m->section[s],
                          m->section_bytes[s], section_names[s], err));
    return APD_OK;
}

/* Any place below the end is the start of a text that ends in the section. */
static enum apd_code check_name(const struct apd_manifest *m, const uint8_t *at,
                                struct apd_err *err)
{
    uint64_t place = apd_get64(at);

    if (place >= m->section_bytes[APD_SECTION_NAMES])
        return refuse(m, at, "place of a name", place, m->section_bytes[APD_SECTION_NAMES], err);
    return APD_OK;
}

static const char *name_at(const struct apd_manifest *m, const uint8_t *at)
{
    return (const char *)m->section[APD_SECTION_NAMES] + apd_get64(at);
}

static const uint8_t *shard_at(const struct apd_manifest *m, uint32_t shard)
{
    return m->section[APD_SECTION_SHARDS] + (uint64_t)shard * APD_MANIFEST_SHARD;
}

static const uint8_t *record_at(const struct apd_manifest *m, uint64_t sample)
{
    return m->section[APD_SECTION_RECORDS] + sample * APD_MANIFEST_RECORD;
}

static enum apd_code check_names(const struct apd_manifest *m, struct apd_err *err)
{
    uint64_t size = m->section_bytes[APD_SECTION_NAMES];

    if (size == 0 || m->section[APD_SECTION_NAMES][size - 1] != '\0')
        return apd_fail(err, APD_DATA, "%s: the names at offset %" PRIu64 " do not end with a NUL",
                        m->path, offset_of(m, m->section[APD_SECTION_NAMES]));
    APD_TRY(check_name(m, m->map + APD_MH_ROOT, err));
    for (uint32_t i = 0; i < m->info.classes; i++)
        APD_TRY(check_name(m, m->section[APD_SECTION_CLASSES] + 8ull * i, err));
    return APD_OK;
}

static enum apd_code check_record(const struct apd_manifest *m, uint64_t sample, uint32_t shard,
                                  struct apd_err *err)
{
    const uint8_t *at = record_at(m, sample);
    uint64_t position = apd_get64(at + APD_MR_POSITION);
    uint32_t size = apd_get32(at + APD_MR_SIZE), label = apd_get32(at + APD_MR_LABEL);

    if (size == 0 || size > APD_IMAGE_BYTES_MAX)
        return apd_fail(err, APD_DATA,
                        "%s: size of an image at offset %" PRIu64 " is %u, expected 1 to %d",
                        m->path, offset_of(m, at + APD_MR_SIZE), size, APD_IMAGE_BYTES_MAX);
    if (label >= m->info.classes)
        return refuse(m, at + APD_MR_LABEL, "label", label, m->info.classes, err);
    if (apd_get32(at + APD_MR_SHARD) != shard)
        return apd_fail(err, APD_DATA, "%s: shard at offset %" PRIu64 " is %u, expected %u",
                        m->path, offset_of(m, at + APD_MR_SHARD), apd_get32(at + APD_MR_SHARD),
                        shard);
    if (m->info.kind == APD_MANIFEST_FOLDER)
        return check_name(m, at + APD_MR_POSITION, err);
    if (position > INT64_MAX || position + size > apd_get64(shard_at(m, shard) + APD_MS_BYTES))
        return refuse(m, at + APD_MR_POSITION, "offset of an image", position,
                      apd_get64(shard_at(m, shard) + APD_MS_BYTES), err);
    return APD_OK;
}

static enum apd_code check_shards(const struct apd_manifest *m, struct apd_err *err)
{
    uint64_t first = 0;

    for (uint32_t s = 0; s < m->info.shards; s++) {
        const uint8_t *at = shard_at(m, s);
        uint32_t samples = apd_get32(at + APD_MS_SAMPLES);

        APD_TRY(check_name(m, at + APD_MS_PATH, err));
        if (apd_get64(at + APD_MS_FIRST) != first)
            return apd_fail(err, APD_DATA,
                            "%s: first sample at offset %" PRIu64 " is %" PRIu64
                            ", expected %" PRIu64,
                            m->path, offset_of(m, at), apd_get64(at + APD_MS_FIRST), first);
        if (samples > m->info.samples - first)
            return refuse(m, at + APD_MS_SAMPLES, "samples of a shard", samples,
                          m->info.samples - first + 1, err);
        for (uint32_t i = 0; i < samples; i++)
            APD_TRY(check_record(m, first + i, s, err));
        first += samples;
    }
    if (first != m->info.samples)
        return apd_fail(err, APD_DATA,
                        "%s: the shards have %" PRIu64 " samples together, expected %" PRIu64
                        " as at offset %d",
                        m->path, first, m->info.samples, APD_MH_SAMPLES);
    return APD_OK;
}

/* ---------------------------------------------------------------- opening */

static enum apd_code map_file(struct apd_manifest *m, struct apd_err *err)
{
    enum apd_code rc = APD_OK;
    struct stat st;
    void *map;
    int fd;

    APD_TRY(apd_regular_open(m->path, &fd, &st, err));
    m->bytes = (uint64_t)st.st_size;
    if (m->bytes < APD_MANIFEST_HEADER) {
        rc = apd_fail(err, APD_DATA, "%s: %" PRIu64 " bytes, expected a manifest of at least %d",
                      m->path, m->bytes, APD_MANIFEST_HEADER);
        goto done;
    }
    map = mmap(NULL, m->bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        rc = apd_fail_errno(err, "mapping %" PRIu64 " bytes of %s", m->bytes, m->path);
    else
        m->map = map;
done:
    close(fd);
    return rc;
}

/* A relative root is seen from the folder of the manifest, so that both can be moved together. */
static enum apd_code find_root(struct apd_manifest *m, struct apd_err *err)
{
    const char *root = name_at(m, m->map + APD_MH_ROOT), *slash = strrchr(m->path, '/');
    int n = slash != NULL ? (int)(slash - m->path) : 0;

    m->info.root = root;
    if (root[0] == '/' || slash == NULL)
        return APD_OK;
    if (strcmp(root, ".") == 0)
        m->root = strndup(m->path, n > 0 ? (size_t)n : 1);
    else if (asprintf(&m->root, "%.*s/%s", n, m->path, root) < 0)
        m->root = NULL;
    if (m->root == NULL)
        return apd_fail(err, APD_NOMEM, "root of %s", m->path);
    m->info.root = m->root;
    return APD_OK;
}

enum apd_code apd_manifest_open(const char *path, struct apd_manifest **out, struct apd_err *err)
{
    struct apd_manifest *m = calloc(1, sizeof *m);
    enum apd_code rc;

    if (m == NULL || (m->path = strdup(path)) == NULL) {
        rc = apd_fail(err, APD_NOMEM, "manifest %s", path);
        goto done;
    }
    APD_GO(map_file(m, err));
    APD_GO(read_header(m, err));
    APD_GO(place_sections(m, err));
    APD_GO(check_names(m, err));
    APD_GO(check_shards(m, err));
    APD_GO(find_root(m, err));
    *out = m;
    m = NULL;
done:
    apd_manifest_close(&m);
    return rc;
}

void apd_manifest_close(struct apd_manifest **manifest)
{
    struct apd_manifest *m = *manifest;

    if (m == NULL)
        return;
    if (m->map != NULL)
        munmap((void *)(uintptr_t)m->map, m->bytes);
    free(m->path);
    free(m->root);
    free(m);
    *manifest = NULL;
}

/* ---------------------------------------------------------------- reading */

const struct apd_manifest_info *apd_manifest_info(const struct apd_manifest *manifest)
{
    return &manifest->info;
}

const char *apd_manifest_class(const struct apd_manifest *m, uint32_t label)
{
    return name_at(m, m->section[APD_SECTION_CLASSES] + (uint64_t)label * APD_MANIFEST_CLASS);
}

void apd_manifest_shard(const struct apd_manifest *m, uint32_t shard,
                        struct apd_manifest_shard *out)
{
    const uint8_t *at = shard_at(m, shard);

    out->path = m->info.kind == APD_MANIFEST_TAR ? name_at(m, at + APD_MS_PATH) : "";
    out->first_sample = apd_get64(at + APD_MS_FIRST);
    out->samples = apd_get32(at + APD_MS_SAMPLES);
    out->left_out = apd_get32(at + APD_MS_LEFT_OUT);
    out->bytes = apd_get64(at + APD_MS_BYTES);
    out->stamp = apd_get64(at + APD_MS_STAMP);
    memcpy(out->sha256, at + APD_MS_SHA256, APD_SHA256_HEX - 1);
    out->sha256[APD_SHA256_HEX - 1] = '\0';
}

void apd_manifest_sample(const struct apd_manifest *m, uint64_t sample,
                         struct apd_manifest_sample *out)
{
    const uint8_t *at = record_at(m, sample);
    int folder = m->info.kind == APD_MANIFEST_FOLDER;

    out->size = apd_get32(at + APD_MR_SIZE);
    out->label = (int32_t)apd_get32(at + APD_MR_LABEL);
    out->crc = apd_get32(at + APD_MR_CRC);
    out->shard = apd_get32(at + APD_MR_SHARD);
    out->offset = folder ? 0 : apd_get64(at + APD_MR_POSITION);
    out->path = folder ? name_at(m, at + APD_MR_POSITION)
                       : name_at(m, shard_at(m, out->shard) + APD_MS_PATH);
}
