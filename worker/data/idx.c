/* Reads one split of an IDX data set whole into memory: u8 images (magic 0x803: n, h, w) and u8
 * labels (magic 0x801: n), big-endian sizes, each file plain or gzip. Every size is checked against
 * the file before memory is taken for it, so what is allocated is never more than the file can
 * hold. */
#include "worker/data/idx.h"

#include "worker/data/unzip.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC_IMAGES UINT32_C(0x00000803)
#define MAGIC_LABELS UINT32_C(0x00000801)
#define SIDE_CAP     4096u               /* pixels */
#define CONTENT_CAP  ((uint64_t)4 << 30) /* bytes of one file's content */

enum { DIMS_MAX = 3, HEADER_MAX = 4 + 4 * DIMS_MAX };

struct idx_state {
    uint8_t *pixels; /* [samples][h][w] */
    uint8_t *labels; /* [samples] */
};

/* One file while it is read. */
struct idx_file {
    char path[PATH_MAX];
    struct apd_unzip *unzip;
    uint32_t dim[DIMS_MAX];
    uint8_t *data; /* [dim[0]][dim[1]][dim[2]]; absent dims are 1 */
    uint64_t bytes;
};

static uint32_t big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* folder/name if it is there, else folder/name.gz. */
static enum apd_code locate(const char *folder, const char *name, char out[PATH_MAX],
                            struct apd_err *err)
{
    static const char *const endings[] = {"", ".gz"};

    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        int n = snprintf(out, PATH_MAX, "%s/%s%s", folder, name, endings[i]);

        if (n < 0 || n >= PATH_MAX)
            return apd_fail(err, APD_CONFIG, "a folder's name of %zu bytes is too long",
                            strlen(folder));
        if (access(out, F_OK) == 0)
            return APD_OK;
    }
    return apd_fail(err, APD_CONFIG, "%s has neither %s nor %s.gz", folder, name, name);
}

int apd_idx_is_there(const char *folder)
{
    struct apd_err none;
    char path[PATH_MAX];

    return locate(folder, "train-images-idx3-ubyte", path, &none) == APD_OK ||
           locate(folder, "t10k-images-idx3-ubyte", path, &none) == APD_OK;
}

/* Magic and sizes; *hash takes the bytes. */
static enum apd_code read_header(struct idx_file *file, uint32_t magic, int dims,
                                 struct apd_sha256 *hash, struct apd_err *err)
{
    uint8_t raw[HEADER_MAX];
    size_t want = 4 + 4 * (size_t)dims, got;

    APD_TRY(apd_unzip_read(file->unzip, raw, want, &got, err));
    if (got < want)
        return apd_fail(err, APD_DATA,
                        "%s: ends at offset %zu inside the header, expected %zu bytes", file->path,
                        got, want);
    if (big_endian(raw) != magic)
        return apd_fail(err, APD_DATA, "%s: magic at offset 0 is 0x%08x, expected 0x%08x",
                        file->path, big_endian(raw), magic);
    for (int d = 0; d < dims; d++) {
        uint32_t cap = d == 0 ? UINT32_MAX : SIDE_CAP;

        file->dim[d] = big_endian(raw + 4 + 4 * d);
        if (file->dim[d] == 0 || file->dim[d] > cap)
            return apd_fail(err, APD_DATA, "%s: size at offset %d is %u, expected 1 to %u",
                            file->path, 4 + 4 * d, file->dim[d], cap);
    }
    return apd_sha256_update(hash, raw, want, err);
}

/* Whether a file of this length can hold what its header declares. */
static enum apd_code check_size(struct idx_file *file, struct apd_err *err)
{
    uint64_t header = apd_unzip_offset(file->unzip), bound = apd_unzip_bound(file->unzip);

    /* At most 2^32 * 2^12 * 2^12: no overflow. */
    file->bytes = (uint64_t)file->dim[0] * file->dim[1] * file->dim[2];
    if (file->bytes > CONTENT_CAP)
        return apd_fail(err, APD_DATA,
                        "%s: the sizes from offset 4 on declare %" PRIu64
                        " bytes, expected at most %" PRIu64,
                        file->path, file->bytes, CONTENT_CAP);
    if (header + file->bytes > bound)
        return apd_fail(err, APD_DATA,
                        "%s: expected %" PRIu64 " bytes from offset %" PRIu64
                        " on, as the header declares, found room for at most %" PRIu64,
                        file->path, file->bytes, header, bound > header ? bound - header : 0);
    return APD_OK;
}

static enum apd_code read_content(struct idx_file *file, struct apd_sha256 *hash,
                                  struct apd_err *err)
{
    uint8_t extra;
    size_t got;

    file->data = malloc(file->bytes);
    if (file->data == NULL)
        return apd_fail(err, APD_NOMEM, "%" PRIu64 " bytes for %s", file->bytes, file->path);
    APD_TRY(apd_unzip_read(file->unzip, file->data, file->bytes, &got, err));
    if (got < file->bytes)
        return apd_fail(err, APD_DATA,
                        "%s: the content ends at offset %" PRIu64 ", expected %" PRIu64
                        " more bytes",
                        file->path, apd_unzip_offset(file->unzip), file->bytes - got);
    APD_TRY(apd_unzip_read(file->unzip, &extra, 1, &got, err)); /* also checks gzip's CRC */
    if (got > 0)
        return apd_fail(err, APD_DATA, "%s: trailing bytes at offset %" PRIu64 ", expected the end",
                        file->path, apd_unzip_offset(file->unzip) - 1);
    return apd_sha256_update(hash, file->data, file->bytes, err);
}

/* Reads a file whole; the caller frees file->data, on failure too. */
static enum apd_code read_file(const char *folder, const char *name, uint32_t magic, int dims,
                               struct idx_file *file, struct apd_sha256 *hash, struct apd_err *err)
{
    enum apd_code rc;

    *file = (struct idx_file){.dim = {1, 1, 1}};
    APD_GO(locate(folder, name, file->path, err));
    APD_GO(apd_unzip_open(file->path, &file->unzip, err));
    APD_GO(read_header(file, magic, dims, hash, err));
    APD_GO(check_size(file, err));
    rc = read_content(file, hash, err);
done:
    apd_unzip_close(&file->unzip);
    return rc;
}

/* classes 0: counts them; else checks that all labels are below. */
static enum apd_code check_labels(const struct idx_file *file, uint32_t classes,
                                  uint32_t *out_classes, struct apd_err *err)
{
    uint64_t largest = 0; /* index of the largest label */

    for (uint64_t i = 1; i < file->bytes; i++)
        if (file->data[i] > file->data[largest])
            largest = i;
    if (classes != 0 && file->data[largest] >= classes)
        return apd_fail(err, APD_DATA,
                        "%s: label of sample %" PRIu64 " (offset %" PRIu64
                        ") is %u, expected below %u",
                        file->path, largest, largest + 8, file->data[largest], classes);
    if (classes == 0 && file->data[largest] == 0)
        return apd_fail(err, APD_DATA, "%s: all labels are 0, expected at least two classes",
                        file->path);
    *out_classes = classes != 0 ? classes : file->data[largest] + 1u;
    return APD_OK;
}

static enum apd_code fill_shards(struct apd_dataset *dataset, struct apd_err *err)
{
    uint64_t left = dataset->samples;

    dataset->shards =
        (uint32_t)((dataset->samples + APD_IDX_SHARD_SAMPLES - 1) / APD_IDX_SHARD_SAMPLES);
    dataset->shard_samples = calloc(dataset->shards, sizeof *dataset->shard_samples);
    if (dataset->shard_samples == NULL)
        return apd_fail(err, APD_NOMEM, "%u shards", dataset->shards);
    for (uint32_t s = 0; s < dataset->shards; s++) {
        dataset->shard_samples[s] = left < APD_IDX_SHARD_SAMPLES ? left : APD_IDX_SHARD_SAMPLES;
        left -= dataset->shard_samples[s];
    }
    return APD_OK;
}

static enum apd_code idx_open(struct apd_dataset *dataset, const char *path, enum apd_split split,
                              uint32_t classes, struct apd_err *err)
{
    const char *images_name =
        split == APD_SPLIT_TRAIN ? "train-images-idx3-ubyte" : "t10k-images-idx3-ubyte";
    const char *labels_name =
        split == APD_SPLIT_TRAIN ? "train-labels-idx1-ubyte" : "t10k-labels-idx1-ubyte";
    struct idx_file images = {0}, labels = {0};
    struct idx_state *state = calloc(1, sizeof *state);
    struct apd_sha256 *hash = NULL;
    enum apd_code rc;

    if (state == NULL)
        return apd_fail(err, APD_NOMEM, "data set %s", path);
    dataset->state = state;
    APD_GO(apd_sha256_create(&hash, err));
    APD_GO(read_file(path, images_name, MAGIC_IMAGES, 3, &images, hash, err));
    APD_GO(read_file(path, labels_name, MAGIC_LABELS, 1, &labels, hash, err));
    if (labels.dim[0] != images.dim[0]) {
        rc = apd_fail(err, APD_DATA, "%s: %u labels at offset 4, expected %u as in %s", labels.path,
                      labels.dim[0], images.dim[0], images.path);
        goto done;
    }
    APD_GO(check_labels(&labels, classes, &dataset->classes, err));
    dataset->samples = images.dim[0];
    dataset->c = 1;
    dataset->h = (int)images.dim[1];
    dataset->w = (int)images.dim[2];
    APD_GO(fill_shards(dataset, err));
    APD_GO(apd_sha256_hex(hash, dataset->digest, err));
    state->pixels = images.data;
    state->labels = labels.data;
    images.data = labels.data = NULL;
done:
    apd_sha256_destroy(&hash);
    free(images.data);
    free(labels.data);
    return rc;
}

static enum apd_code idx_fetch(const struct apd_dataset *dataset, uint64_t sample,
                               struct apd_buffer *buffer, struct apd_stored *out,
                               struct apd_err *err)
{
    const struct idx_state *state = dataset->state;
    size_t bytes = apd_dataset_image_bytes(dataset);

    (void)buffer;
    (void)err; /* all was checked when it was opened */
    *out = (struct apd_stored){
        .bytes = state->pixels + sample * bytes, .size = bytes, .label = state->labels[sample]};
    return APD_OK;
}

static void idx_close(struct apd_dataset *dataset)
{
    struct idx_state *state = dataset->state;

    if (state == NULL)
        return;
    free(state->pixels);
    free(state->labels);
    free(state);
}

const struct apd_dataset_ops apd_idx_ops = {
    .format = "idx",
    .open = idx_open,
    .fetch = idx_fetch,
    .close = idx_close,
};
