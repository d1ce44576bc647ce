#include "worker/index/pack_source.h"

#include "worker/data/bytes.h"
#include "worker/data/png_write.h"
#include "worker/data/regular.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum apd_code apd_pack_source_folder(const char *src, unsigned threads, const atomic_int *stop,
                                     struct apd_pack_source *out, struct apd_err *err)
{
    *out = (struct apd_pack_source){.root = src};
    if (apd_folder_scan(src, threads, stop, &out->folder, err) != APD_OK) {
        apd_pack_source_fini(out);
        return err->code;
    }
    out->samples = out->folder.count;
    return APD_OK;
}

enum apd_code apd_pack_source_idx(const char *src, enum apd_split split, uint32_t classes,
                                  struct apd_pack_source *out, struct apd_err *err)
{
    *out = (struct apd_pack_source){.root = src};
    APD_TRY(apd_dataset_open("idx", src, split, classes, &out->dataset, err));
    out->samples = out->dataset->samples;
    return APD_OK;
}

enum apd_code apd_pack_source_stamp(const struct apd_pack_source *source, char out[APD_SHA256_HEX],
                                    struct apd_err *err)
{
    struct apd_sha256 *hash = NULL;
    enum apd_code rc;

    if (source->dataset != NULL) {
        memcpy(out, source->dataset->digest, APD_SHA256_HEX);
        return APD_OK;
    }
    APD_GO(apd_sha256_create(&hash, err));
    for (size_t i = 0; i < source->folder.count; i++) {
        const struct apd_folder_file *file = &source->folder.file[i];
        uint8_t raw[16];

        apd_put64(apd_put64(raw, file->size), (uint64_t)file->mtime_ns);
        APD_GO(apd_sha256_update(hash, file->path, strlen(file->path) + 1, err));
        APD_GO(apd_sha256_update(hash, raw, sizeof raw, err));
    }
    rc = apd_sha256_hex(hash, out, err);
done:
    apd_sha256_destroy(&hash);
    return rc;
}

static enum apd_code take_file(const struct apd_pack_source *source, uint64_t sample,
                               struct apd_sample_bytes *out, struct apd_err *err)
{
    const struct apd_folder_file *file = &source->folder.file[sample];
    char path[PATH_MAX];
    enum apd_code rc;
    struct stat st;
    int fd;

    (void)snprintf(path, sizeof path, "%s/%s", source->root, file->path);
    APD_TRY(apd_regular_open(path, &fd, &st, err));
    if (st.st_size != file->size || apd_mtime_ns(&st) != file->mtime_ns)
        rc = apd_fail(err, APD_DATA, "%s changed while it was packed: start again", path);
    else if ((rc = apd_sample_bytes_reserve(out, file->size, err)) == APD_OK)
        rc = apd_regular_read(fd, path, 0, out->data, file->size, err);
    close(fd);
    out->size = file->size;
    return rc;
}

static enum apd_code take_idx(const struct apd_pack_source *source, uint64_t sample,
                              struct apd_sample_bytes *out, int32_t *out_label, struct apd_err *err)
{
    const struct apd_dataset *dataset = source->dataset;
    struct apd_buffer none = {0}; /* idx needs no buffer */
    struct apd_stored stored;

    APD_TRY(apd_dataset_fetch(dataset, sample, &none, &stored, err));
    *out_label = stored.label;
    return apd_png_write(stored.bytes, dataset->w, dataset->h, 1, APD_PNG_SMALL, out, err);
}

enum apd_code apd_pack_source_read(const struct apd_pack_source *source, uint64_t sample,
                                   struct apd_sample_bytes *out, const char **out_extension,
                                   int32_t *out_label, struct apd_err *err)
{
    if (source->dataset != NULL) {
        *out_extension = "png";
        return take_idx(source, sample, out, out_label, err);
    }
    (void)apd_image_name(source->folder.file[sample].path, out_extension);
    *out_label = (int32_t)source->folder.file[sample].label;
    return take_file(source, sample, out, err);
}

void apd_pack_source_fini(struct apd_pack_source *source)
{
    apd_folder_fini(&source->folder);
    apd_dataset_close(&source->dataset);
    *source = (struct apd_pack_source){0};
}
