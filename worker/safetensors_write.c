/* Writes a safetensors file: the header's JSON from the list of tensors, then the data as it lies
 * in memory. SHA-256 and size are those of the bytes written, taken on the way out. */
#include "base/fs.h"
#include "worker/safetensors.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the data is written as it lies in memory");

/* The part of the file written so far. */
struct output {
    int fd;
    int created; /* there is a temporary file to remove on failure */
    char temporary[PATH_MAX];
    struct apd_sha256 *hash;
    uint64_t bytes;
};

/* One entry of the header; NULL if it cannot be. */
static json_t *entry_of(const struct apd_tensor *tensor, uint64_t begin)
{
    json_t *shape = json_array();

    for (int d = 0; d < tensor->dims; d++)
        if (json_array_append_new(shape, json_integer((json_int_t)tensor->shape[d])) != 0) {
            json_decref(shape);
            return NULL;
        }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", apd_dtype_name(tensor->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin,
                     (json_int_t)(begin + apd_tensor_bytes(tensor)));
}

/* Adds a member that must be new; takes the reference to `value` (NULL: failure). */
static enum apd_code add_member(json_t *object, const char *key, json_t *value, struct apd_err *err)
{
    if (json_object_get(object, key) != NULL) {
        json_decref(value);
        return apd_fail(err, APD_BUG, "safetensors header: %s is there twice", key);
    }
    if (json_object_set_new(object, key, value) != 0)
        return apd_fail(err, APD_BUG, "safetensors header: %s cannot be put into JSON", key);
    return APD_OK;
}

static enum apd_code build_header(const struct apd_tensor *tensors, size_t tensor_count,
                                  const struct apd_meta *meta, size_t meta_count, json_t *root,
                                  struct apd_err *err)
{
    json_t *metadata = json_object();
    uint64_t begin = 0;

    APD_TRY(add_member(root, "__metadata__", metadata, err));
    for (size_t i = 0; i < meta_count; i++)
        APD_TRY(add_member(metadata, meta[i].key, json_string(meta[i].value), err));
    for (size_t i = 0; i < tensor_count; i++) {
        APD_TRY(add_member(root, tensors[i].name, entry_of(&tensors[i], begin), err));
        begin += apd_tensor_bytes(&tensors[i]);
    }
    return APD_OK;
}

static enum apd_code put(struct output *output, const void *data, uint64_t bytes,
                         struct apd_err *err)
{
    /* In pieces, so that what is hashed is still in the cache when it is written. */
    const uint64_t piece_bytes = 1 << 20;
    const char *at = data;

    for (uint64_t left = bytes; left > 0;) {
        size_t piece = left < piece_bytes ? (size_t)left : (size_t)piece_bytes;

        APD_TRY(apd_sha256_update(output->hash, at, piece, err));
        APD_TRY(apd_write_all(output->fd, at, piece, output->temporary, err));
        at += piece;
        left -= piece;
        output->bytes += piece;
    }
    return APD_OK;
}

static enum apd_code put_header(struct output *output, const json_t *root, struct apd_err *err)
{
    char *text = json_dumps(root, JSON_COMPACT);
    size_t n = text == NULL ? 0 : strlen(text);
    uint64_t length = (n + 7) / 8 * 8;
    enum apd_code rc;

    if (text == NULL)
        return apd_fail(err, APD_NOMEM, "safetensors header");
    APD_GO(put(output, &length, sizeof length, err));
    APD_GO(put(output, text, n, err));
    rc = put(output, "       ", length - n, err);
done:
    free(text);
    return rc;
}

/* fsync, close, rename, fsync of the folder: after it the file exists. */
static enum apd_code settle(struct output *output, const char *path, struct apd_err *err)
{
    int closed;

    if (fsync(output->fd) != 0)
        return apd_fail_errno(err, "fsync of %s", output->temporary);
    closed = close(output->fd);
    output->fd = -1;
    if (closed != 0)
        return apd_fail_errno(err, "closing %s", output->temporary);
    if (rename(output->temporary, path) != 0)
        return apd_fail_errno(err, "renaming %s to %s", output->temporary, path);
    if (apd_fsync_folder_of(path, err) != APD_OK) {
        (void)unlink(path);
        return err->code;
    }
    return APD_OK;
}

enum apd_code apd_safetensors_write(const char *path, const struct apd_tensor *tensors,
                                    size_t tensor_count, const struct apd_meta *meta,
                                    size_t meta_count, uint64_t *out_bytes,
                                    char out_sha256[APD_SHA256_HEX], struct apd_err *err)
{
    struct output output = {.fd = -1};
    json_t *root = json_object();
    char sha256[APD_SHA256_HEX];
    int n = snprintf(output.temporary, sizeof output.temporary, "%s.tmp.%ld", path, (long)getpid());
    enum apd_code rc;

    if (n < 0 || (size_t)n >= sizeof output.temporary) {
        rc = apd_fail(err, APD_CONFIG, "path of %zu bytes is too long: %s", strlen(path), path);
        goto done;
    }
    APD_GO(build_header(tensors, tensor_count, meta, meta_count, root, err));
    APD_GO(apd_sha256_create(&output.hash, err));
    output.fd = open(output.temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (output.fd < 0) {
        rc = apd_fail_errno(err, "creating %s", output.temporary);
        goto done;
    }
    output.created = 1;
    APD_GO(put_header(&output, root, err));
    for (size_t i = 0; i < tensor_count; i++)
        APD_GO(put(&output, tensors[i].data, apd_tensor_bytes(&tensors[i]), err));
    APD_GO(apd_sha256_hex(output.hash, sha256, err));
    APD_GO(settle(&output, path, err));
    memcpy(out_sha256, sha256, sizeof sha256);
    *out_bytes = output.bytes;
done:
    if (output.fd >= 0)
        close(output.fd);
    if (rc != APD_OK && output.created)
        (void)unlink(output.temporary);
    apd_sha256_destroy(&output.hash);
    json_decref(root);
    return rc;
}
