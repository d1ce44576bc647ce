/* Reads a safetensors file that anybody may have damaged: nothing of the header is believed before
 * it is checked against the file's size. The header's JSON stays in memory while the file is open;
 * names and metadata point into it. */
#include "worker/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the data is used as it lies in the file");

#define HEADER_CAP      ((uint64_t)16 << 20)
#define HEADER_START    8
#define METADATA_MEMBER "__metadata__"

struct entry {
    struct apd_tensor tensor; /* first: what is handed out leads back to the entry */
    uint64_t begin, end;      /* from the start of the data */
};

struct apd_safetensors {
    char *path;
    int fd;
    json_t *root;
    uint64_t header_bytes, file_bytes;
    struct entry *entries; /* by offset */
    size_t count;
    struct apd_meta *metas;
    size_t meta_count;
};

/* ---------------------------------------------------------------- the header */

static int get_count(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return 0;
    *out = (uint64_t)json_integer_value(value);
    return 1;
}

/* Fills the shape; *out_bytes: what a tensor of it takes. Returns NULL or what is wrong. */
static const char *shape_of(const json_t *shape, unsigned elem_bytes, struct apd_tensor *tensor,
                            uint64_t *out_bytes)
{
    uint64_t bytes = elem_bytes;

    if (!json_is_array(shape) || json_array_size(shape) > APD_TENSOR_DIMS)
        return "shape is not a list of at most 8 sizes";
    tensor->dims = (int)json_array_size(shape);
    for (int d = 0; d < tensor->dims; d++) {
        if (!get_count(json_array_get(shape, (size_t)d), &tensor->shape[d]))
            return "shape holds something that is not a size";
        if (__builtin_mul_overflow(bytes, tensor->shape[d], &bytes))
            return "shape is larger than 2^64 bytes";
    }
    *out_bytes = bytes;
    return NULL;
}

/* One member of the header. Returns NULL or what is wrong. */
static const char *entry_of(const char *name, const json_t *member, struct entry *out)
{
    const json_t *offsets = json_object_get(member, "data_offsets");
    const char *dtype = json_string_value(json_object_get(member, "dtype"));
    const char *problem;
    uint64_t bytes;

    out->tensor.name = name;
    if (dtype == NULL || !apd_dtype_of(dtype, &out->tensor.dtype))
        return "dtype is missing or unknown";
    problem = shape_of(json_object_get(member, "shape"), apd_dtype_bytes(out->tensor.dtype),
                       &out->tensor, &bytes);
    if (problem != NULL)
        return problem;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !get_count(json_array_get(offsets, 0), &out->begin) ||
        !get_count(json_array_get(offsets, 1), &out->end))
        return "data_offsets is not a pair of offsets";
    if (out->end < out->begin || out->end - out->begin != bytes)
        return "data_offsets do not agree with dtype and shape";
    return NULL;
}

static int by_offset(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static enum apd_code read_metadata(struct apd_safetensors *file, struct apd_err *err)
{
    json_t *metadata = json_object_get(file->root, METADATA_MEMBER);
    const char *key;
    json_t *value;

    if (metadata != NULL && !json_is_object(metadata))
        return apd_fail(err, APD_DATA, "%s: %s is not an object", file->path, METADATA_MEMBER);
    file->metas = calloc(json_object_size(metadata) + 1, sizeof *file->metas);
    if (file->metas == NULL)
        return apd_fail(err, APD_NOMEM, "metadata of %s", file->path);
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return apd_fail(err, APD_DATA, "%s: metadata %s is not a string", file->path, key);
        file->metas[file->meta_count++] = (struct apd_meta){key, json_string_value(value)};
    }
    return APD_OK;
}

static enum apd_code read_entries(struct apd_safetensors *file, struct apd_err *err)
{
    const char *name, *problem;
    json_t *member;

    file->entries = calloc(json_object_size(file->root) + 1, sizeof *file->entries);
    if (file->entries == NULL)
        return apd_fail(err, APD_NOMEM, "index of %s", file->path);
    json_object_foreach(file->root, name, member)
    {
        if (strcmp(name, METADATA_MEMBER) == 0)
            continue;
        problem = entry_of(name, member, &file->entries[file->count]);
        if (problem != NULL)
            return apd_fail(err, APD_DATA, "%s: tensor %s: %s", file->path, name, problem);
        file->count++;
    }
    qsort(file->entries, file->count, sizeof *file->entries, by_offset);
    return APD_OK;
}

/* The tensors follow one another without hole or overlap and end where the file ends. */
static enum apd_code check_cover(const struct apd_safetensors *file, struct apd_err *err)
{
    uint64_t data_bytes = file->file_bytes - HEADER_START - file->header_bytes, end = 0;

    for (size_t i = 0; i < file->count; i++) {
        if (file->entries[i].begin != end)
            return apd_fail(err, APD_DATA,
                            "%s: tensor %s begins at data offset %" PRIu64 ", expected %" PRIu64,
                            file->path, file->entries[i].tensor.name, file->entries[i].begin, end);
        end = file->entries[i].end;
    }
    if (end != data_bytes)
        return apd_fail(err, APD_DATA,
                        "%s: the file has %" PRIu64 " bytes of data after the header, the header "
                        "tells of %" PRIu64,
                        file->path, data_bytes, end);
    return APD_OK;
}

/* ---------------------------------------------------------------- the file */

static enum apd_code read_at(const struct apd_safetensors *file, void *dst, uint64_t bytes,
                             uint64_t offset, struct apd_err *err)
{
    char *at = dst;

    while (bytes > 0) {
        ssize_t got = pread(file->fd, at, bytes, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return apd_fail_errno(err, "reading %s at offset %" PRIu64, file->path, offset);
        if (got == 0)
            return apd_fail(err, APD_DATA,
                            "%s ends at offset %" PRIu64 ", expected %" PRIu64 " more bytes",
                            file->path, offset, bytes);
        at += got;
        offset += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return APD_OK;
}

static enum apd_code check_sha256(const struct apd_safetensors *file, const char *expected,
                                  struct apd_err *err)
{
    char found[APD_SHA256_HEX];

    APD_TRY(apd_sha256_of_fd(file->fd, file->path, found, err));
    if (strcmp(found, expected) != 0)
        return apd_fail(err, APD_DATA, "%s has SHA-256 %s, expected %s", file->path, found,
                        expected);
    return APD_OK;
}

static enum apd_code open_file(struct apd_safetensors *file, struct apd_err *err)
{
    struct stat st;

    file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
    if (file->fd < 0)
        return apd_fail_errno(err, "opening %s", file->path);
    if (fstat(file->fd, &st) != 0)
        return apd_fail_errno(err, "%s", file->path);
    if (!S_ISREG(st.st_mode))
        return apd_fail(err, APD_DATA, "%s is no file", file->path);
    file->file_bytes = (uint64_t)st.st_size;
    if (file->file_bytes < HEADER_START)
        return apd_fail(err, APD_DATA, "%s has %" PRIu64 " bytes, expected at least %d", file->path,
                        file->file_bytes, HEADER_START);
    return APD_OK;
}

static enum apd_code read_header(struct apd_safetensors *file, struct apd_err *err)
{
    char *text = NULL;
    json_error_t problem;
    enum apd_code rc;

    APD_TRY(read_at(file, &file->header_bytes, HEADER_START, 0, err));
    if (file->header_bytes > HEADER_CAP || file->header_bytes > file->file_bytes - HEADER_START)
        return apd_fail(err, APD_DATA,
                        "%s: header of %" PRIu64 " bytes at offset 0, expected at most %" PRIu64
                        " (file of %" PRIu64 ")",
                        file->path, file->header_bytes, HEADER_CAP, file->file_bytes);
    text = malloc(file->header_bytes + 1);
    if (text == NULL)
        return apd_fail(err, APD_NOMEM, "header of %s", file->path);
    APD_GO(read_at(file, text, file->header_bytes, HEADER_START, err));
    file->root = json_loadb(text, file->header_bytes, JSON_REJECT_DUPLICATES, &problem);
    if (file->root == NULL)
        rc = apd_fail(err, APD_DATA, "%s: the header is not JSON at offset %d: %s", file->path,
                      HEADER_START + problem.position, problem.text);
    else if (!json_is_object(file->root) || text[0] != '{')
        rc = apd_fail(err, APD_DATA, "%s: the header is not a JSON object", file->path);
done:
    free(text);
    return rc;
}

enum apd_code apd_safetensors_open(const char *path, const char *expected_sha256,
                                   struct apd_safetensors **out, struct apd_err *err)
{
    struct apd_safetensors *file = calloc(1, sizeof *file);
    enum apd_code rc;

    if (file != NULL) {
        file->fd = -1;
        file->path = strdup(path);
    }
    if (file == NULL || file->path == NULL) {
        rc = apd_fail(err, APD_NOMEM, "opening %s", path);
        goto done;
    }
    APD_GO(open_file(file, err));
    if (expected_sha256 != NULL)
        APD_GO(check_sha256(file, expected_sha256, err));
    APD_GO(read_header(file, err));
    APD_GO(read_metadata(file, err));
    APD_GO(read_entries(file, err));
    APD_GO(check_cover(file, err));
    *out = file;
    file = NULL;
done:
    apd_safetensors_close(&file);
    return rc;
}

void apd_safetensors_close(struct apd_safetensors **file)
{
    if (*file == NULL)
        return;
    if ((*file)->fd >= 0)
        close((*file)->fd);
    json_decref((*file)->root);
    free((*file)->entries);
    free((*file)->metas);
    free((*file)->path);
    free(*file);
    *file = NULL;
}

/* ---------------------------------------------------------------- its content */

size_t apd_safetensors_count(const struct apd_safetensors *file)
{
    return file->count;
}

const struct apd_tensor *apd_safetensors_at(const struct apd_safetensors *file, size_t index)
{
    return &file->entries[index].tensor;
}

const struct apd_tensor *apd_safetensors_find(const struct apd_safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++)
        if (strcmp(file->entries[i].tensor.name, name) == 0)
            return &file->entries[i].tensor;
    return NULL;
}

const char *apd_safetensors_meta(const struct apd_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->root, METADATA_MEMBER), key));
}

const struct apd_meta *apd_safetensors_metas(const struct apd_safetensors *file, size_t *out_count)
{
    *out_count = file->meta_count;
    return file->metas;
}

enum apd_code apd_safetensors_read(const struct apd_safetensors *file,
                                   const struct apd_tensor *tensor, void *dst, struct apd_err *err)
{
    const struct entry *entry = (const struct entry *)tensor;

    return read_at(file, dst, entry->end - entry->begin,
                   HEADER_START + file->header_bytes + entry->begin, err);
}

static enum apd_code read_tensor(const struct apd_safetensors *file, const char *name,
                                 enum apd_dtype dtype, void *dst, uint64_t elems,
                                 struct apd_err *err)
{
    const struct apd_tensor *tensor = apd_safetensors_find(file, name);

    if (tensor == NULL)
        return apd_fail(err, APD_DATA, "%s: there is no tensor %s", file->path, name);
    if (tensor->dtype != dtype)
        return apd_fail(err, APD_DATA, "%s: tensor %s is of type %s, expected %s", file->path, name,
                        apd_dtype_name(tensor->dtype), apd_dtype_name(dtype));
    if (apd_tensor_elems(tensor) != elems)
        return apd_fail(err, APD_DATA, "%s: tensor %s has %" PRIu64 " elements, expected %" PRIu64,
                        file->path, name, apd_tensor_elems(tensor), elems);
    return apd_safetensors_read(file, tensor, dst, err);
}

enum apd_code apd_safetensors_read_floats(const struct apd_safetensors *file, const char *name,
                                          float *dst, uint64_t elems, struct apd_err *err)
{
    return read_tensor(file, name, APD_DTYPE_F32, dst, elems, err);
}

enum apd_code apd_safetensors_read_u64(const struct apd_safetensors *file, const char *name,
                                       uint64_t *dst, uint64_t elems, struct apd_err *err)
{
    return read_tensor(file, name, APD_DTYPE_U64, dst, elems, err);
}
