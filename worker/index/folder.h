/* A folder of images as a data set, with the rules of torchvision's ImageFolder: the sorted names
 * of the folders in the root are the classes, the images below each, at any depth, its samples,
 * sorted by the text of their folder, then by name. Links are followed. Images are files named
 * .jpg, .jpeg, .png or .webp, in any case. Unlike there, hidden files and folders are passed over,
 * and a class may be empty. */
#ifndef APD_WORKER_INDEX_FOLDER_H
#define APD_WORKER_INDEX_FOLDER_H

#include "base/err.h"
#include "base/hash.h"
#include "worker/index/shard_names.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct apd_folder_file {
    char *path;           /* relative to the root */
    uint32_t label;       /* of its class */
    uint32_t size;        /* bytes, 1 to APD_IMAGE_BYTES_MAX */
    int64_t mtime_ns;     /* with size: whether it can have changed */
    uint16_t folder_size; /* bytes of the path before the last slash */
};

struct apd_folder {
    struct apd_names classes;
    struct apd_folder_file *file; /* [count], in order of samples */
    size_t count, capacity;
    struct apd_names
        left_out;           /* "path: reason": dangling links, FIFOs, empty or huge files, loops */
    uint64_t hidden, other; /* passed over: hidden in a class, and of no image's name */
};

/* Whether `name` ends as an image's; *out_extension is then "jpg", "jpeg", "png" or "webp". */
int apd_image_name(const char *name, const char **out_extension);

/* Whether a file can have changed, as part of a hash: its path, size and time. */
APD_MUST_USE enum apd_code apd_stamp_add(struct apd_sha256 *hash, const char *path, uint64_t size,
                                         int64_t mtime_ns, struct apd_err *err);

/* Looks at everything below root: names, sizes and times, no content. Classes are walked by several
 * threads. stop may be NULL. APD_CONFIG: no folder in it. On failure the caller ends *out, too. */
APD_MUST_USE enum apd_code apd_folder_scan(const char *root, unsigned threads,
                                           const atomic_int *stop, struct apd_folder *out,
                                           struct apd_err *err);
void apd_folder_fini(struct apd_folder *folder);

#endif
