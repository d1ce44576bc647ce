#include "worker/index/folder.h"

#include "worker/data/bytes.h"
#include "worker/data/manifest.h"
#include "worker/data/regular.h"
#include "worker/index/parallel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const extensions[] = {"jpg", "jpeg", "png", "webp"};

int apd_image_name(const char *name, const char **out_extension)
{
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot != NULL && i < sizeof extensions / sizeof *extensions; i++)
        if (strcasecmp(dot + 1, extensions[i]) == 0) {
            *out_extension = extensions[i];
            return 1;
        }
    return 0;
}

enum apd_code apd_stamp_add(struct apd_sha256 *hash, const char *path, uint64_t size,
                            int64_t mtime_ns, struct apd_err *err)
{
    uint8_t raw[16];

    apd_put64(apd_put64(raw, size), (uint64_t)mtime_ns);
    APD_TRY(apd_sha256_update(hash, path, strlen(path) + 1, err));
    return apd_sha256_update(hash, raw, sizeof raw, err);
}

/* ---------------------------------------------------------------- one class */

struct walk {
    const char *root;
    uint32_t label;
    struct apd_folder found; /* of this class */
};

/* The folders above the one that is read, against links that lead back to one of them. */
struct level {
    const struct level *above;
    dev_t device;
    ino_t inode;
};

static enum apd_code leave_out(struct walk *walk, const char *path, const char *reason,
                               struct apd_err *err)
{
    char text[PATH_MAX + 128];
    int n = snprintf(text, sizeof text, "%s: %s", path, reason);

    return apd_names_add(&walk->found.left_out, text, (size_t)n, err);
}

static enum apd_code add_file(struct walk *walk, const char *path, const struct stat *st,
                              struct apd_err *err)
{
    struct apd_folder *found = &walk->found;
    struct apd_folder_file *file;

    if (found->count == found->capacity) {
        size_t capacity = found->capacity > 0 ? 2 * found->capacity : 256;

        file = realloc(found->file, capacity * sizeof *file);
        if (file == NULL)
            return apd_fail(err, APD_NOMEM, "%zu files", capacity);
        found->file = file;
        found->capacity = capacity;
    }
    file = &found->file[found->count];
    file->path = strdup(path);
    if (file->path == NULL)
        return apd_fail(err, APD_NOMEM, "the name of %s", path);
    file->folder_size = (uint16_t)(strrchr(path, '/') - path);
    file->label = walk->label;
    file->size = (uint32_t)st->st_size;
    file->mtime_ns = apd_mtime_ns(st);
    found->count++;
    return APD_OK;
}

static enum apd_code take_image(struct walk *walk, const char *path, const struct stat *st,
                                struct apd_err *err)
{
    if (!S_ISREG(st->st_mode))
        return leave_out(walk, path, "no regular file", err);
    if (st->st_size == 0)
        return leave_out(walk, path, "an empty file", err);
    if (st->st_size > APD_IMAGE_BYTES_MAX)
        return leave_out(walk, path, "larger than 256 MiB", err);
    return add_file(walk, path, st, err);
}

static enum apd_code read_folder(struct walk *walk, const char *path, const struct level *above,
                                 struct apd_err *err);

static enum apd_code take_entry(struct walk *walk, DIR *dir, const struct dirent *entry,
                                const char *path, const struct level *level, struct apd_err *err)
{
    const char *extension;
    int image = apd_image_name(entry->d_name, &extension);
    struct stat st;

    if (entry->d_type == DT_REG && !image) {
        walk->found.other++;
        return APD_OK;
    }
    if (fstatat(dirfd(dir), entry->d_name, &st, 0) != 0) {
        if (errno != ENOENT && errno != ELOOP)
            return apd_fail_errno(err, "%s/%s", walk->root, path);
        walk->found.other += !image;
        return image ? leave_out(walk, path, "a link that leads nowhere", err) : APD_OK;
    }
    if (S_ISDIR(st.st_mode)) {
        for (const struct level *l = level; l != NULL; l = l->above)
            if (l->device == st.st_dev && l->inode == st.st_ino)
                return leave_out(walk, path, "a link to a folder that it lies in", err);
        return read_folder(walk, path, level, err);
    }
    walk->found.other += !image;
    return image ? take_image(walk, path, &st, err) : APD_OK;
}

/* path: relative to the root. */
static enum apd_code read_folder(struct walk *walk, const char *path, const struct level *above,
                                 struct apd_err *err)
{
    struct level level = {.above = above};
    char full[PATH_MAX], inner[PATH_MAX];
    enum apd_code rc = APD_OK;
    struct dirent *entry;
    struct stat st;
    DIR *dir;

    (void)snprintf(full, sizeof full, "%s/%s", walk->root, path); /* cut: not found below */
    dir = opendir(full);
    if (dir == NULL || fstat(dirfd(dir), &st) != 0) {
        rc = apd_fail_errno(err, "reading folder %s", full);
        goto done;
    }
    level.device = st.st_dev;
    level.inode = st.st_ino;
    while (errno = 0, (entry = readdir(dir)) != NULL) {
        int n;

        if (entry->d_name[0] == '.') {
            walk->found.hidden +=
                strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
            continue;
        }
        n = snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        if (n < 0 || (size_t)n >= sizeof inner) {
            rc = apd_fail(err, APD_DATA, "%s: a path of %d bytes, expected below %d", full, n,
                          PATH_MAX);
            goto done;
        }
        APD_GO(take_entry(walk, dir, entry, inner, &level, err));
    }
    if (errno != 0)
        rc = apd_fail_errno(err, "reading folder %s", full);
done:
    if (dir != NULL)
        closedir(dir);
    return rc;
}

/* By the text of the folder, then by name: what sorted(os.walk()) with sorted names gives. */
static int by_folder_and_name(const void *a, const void *b)
{
    const struct apd_folder_file *left = a, *right = b;
    size_t common = left->folder_size < right->folder_size ? left->folder_size : right->folder_size;
    int order = memcmp(left->path, right->path, common);

    if (order != 0)
        return order;
    if (left->folder_size != right->folder_size)
        return left->folder_size < right->folder_size ? -1 : 1;
    return strcmp(left->path + left->folder_size, right->path + right->folder_size);
}

/* ---------------------------------------------------------------- all classes */

struct scan {
    const char *root;
    struct level top;  /* of the root */
    struct walk *walk; /* [classes] */
    char **name;
};

static enum apd_code scan_class(void *context, size_t i, struct apd_err *err)
{
    struct scan *scan = context;
    struct walk *walk = &scan->walk[i];

    walk->root = scan->root;
    walk->label = (uint32_t)i;
    APD_TRY(read_folder(walk, scan->name[i], &scan->top, err));
    if (walk->found.count > 0)
        qsort(walk->found.file, walk->found.count, sizeof *walk->found.file, by_folder_and_name);
    return APD_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum apd_code find_classes(const char *root, struct level *top, struct apd_folder *out,
                                  struct apd_err *err)
{
    DIR *dir = opendir(root);
    enum apd_code rc = APD_OK;
    struct dirent *entry;
    struct stat st;

    if (dir == NULL)
        return apd_fail_errno(err, "reading folder %s", root);
    if (fstat(dirfd(dir), &st) != 0) {
        rc = apd_fail_errno(err, "folder %s", root);
        goto done;
    }
    *top = (struct level){.device = st.st_dev, .inode = st.st_ino};
    while (errno = 0, (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue; /* not counted: the index may lie here */
        if (fstatat(dirfd(dir), entry->d_name, &st, 0) != 0 || !S_ISDIR(st.st_mode))
            out->other++;
        else
            APD_GO(apd_names_add(&out->classes, entry->d_name, strlen(entry->d_name), err));
    }
    if (errno != 0)
        rc = apd_fail_errno(err, "reading folder %s", root);
    else if (out->classes.count == 0)
        rc = apd_fail(err, APD_CONFIG, "%s: expected a folder for each class, found none", root);
    else
        qsort(out->classes.name, out->classes.count, sizeof *out->classes.name, by_name);
done:
    closedir(dir);
    return rc;
}

/* Puts the classes' files behind one another; *walk keeps none of them. */
static enum apd_code collect(struct walk *walk, struct apd_folder *out, struct apd_err *err)
{
    size_t total = 0, classes = out->classes.count;

    for (size_t i = 0; i < classes; i++)
        total += walk[i].found.count;
    out->file = malloc((total + 1) * sizeof *out->file);
    if (out->file == NULL)
        return apd_fail(err, APD_NOMEM, "%zu files", total);
    for (size_t i = 0; i < classes; i++) {
        struct apd_folder *found = &walk[i].found;

        if (found->count > 0)
            memcpy(out->file + out->count, found->file, found->count * sizeof *found->file);
        out->count += found->count;
        out->hidden += found->hidden;
        out->other += found->other;
        found->count = 0;
        for (size_t j = 0; j < found->left_out.count; j++)
            APD_TRY(apd_names_add(&out->left_out, found->left_out.name[j],
                                  strlen(found->left_out.name[j]), err));
    }
    return APD_OK;
}

enum apd_code apd_folder_scan(const char *root, unsigned threads, const atomic_int *stop,
                              struct apd_folder *out, struct apd_err *err)
{
    struct scan scan = {.root = root};
    struct apd_parallel work = {
        .threads = threads, .body = scan_class, .context = &scan, .stop = stop};
    enum apd_code rc;

    *out = (struct apd_folder){0};
    APD_TRY(find_classes(root, &scan.top, out, err));
    work.count = out->classes.count;
    scan.name = out->classes.name;
    scan.walk = calloc(work.count, sizeof *scan.walk);
    if (scan.walk == NULL)
        return apd_fail(err, APD_NOMEM, "%zu classes", work.count);
    APD_GO(apd_parallel_run(&work, err));
    rc = collect(scan.walk, out, err);
done:
    for (size_t i = 0; i < work.count; i++)
        apd_folder_fini(&scan.walk[i].found);
    free(scan.walk);
    return rc;
}

void apd_folder_fini(struct apd_folder *folder)
{
    for (size_t i = 0; i < folder->count; i++)
        free(folder->file[i].path);
    free(folder->file);
    apd_names_fini(&folder->classes);
    apd_names_fini(&folder->left_out);
    *folder = (struct apd_folder){0};
}
