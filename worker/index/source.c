#include "worker/index/source.h"

#include "base/fs.h"
#include "base/hash.h"
#include "worker/data/manifest_format.h"
#include "worker/data/regular.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INDEX_NAME   ".advprop-index"
#define CLASSES_NAME "classes.txt"

enum { CLASSES_FILE_CAP = 64 << 20 };

/* ---------------------------------------------------------------- names */

static int is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Bytes of src before the first special character, all of it if it is there as it is written. */
static size_t literal_size(const char *src)
{
    return access(src, F_OK) == 0 ? strlen(src) : strcspn(src, "{*?[");
}

/* Bytes of the folder in which all that src can stand for lies; 0: the current one. */
static size_t root_size(const char *src)
{
    size_t n = is_folder(src) ? strlen(src) : literal_size(src);

    if (is_folder(src)) {
        while (n > 1 && src[n - 1] == '/')
            n--;
        return n;
    }
    while (n > 0 && src[n - 1] != '/')
        n--;
    return n > 1 ? n - 1 : n;
}

static enum apd_code root_of(const char *src, char **out, struct apd_err *err)
{
    size_t n = root_size(src);

    *out = n > 0 ? strndup(src, n) : strdup(".");
    return *out != NULL ? APD_OK : apd_fail(err, APD_NOMEM, "the folder of %s", src);
}

enum apd_code apd_source_index_path(const char *src, char **out, struct apd_err *err)
{
    size_t size = literal_size(src), from = size;
    char *root = NULL;
    int n;

    APD_TRY(root_of(src, &root, err));
    if (!is_folder(src)) {
        while (from > 0 && src[from - 1] != '/')
            from--;
        if (size - from > 4 && strncmp(src + size - 4, ".tar", 4) == 0)
            size -= 4;
        while (size > from && strchr("-_.", src[size - 1]) != NULL)
            size--;
    }
    n = asprintf(out, "%s/%.*s" INDEX_NAME, root, (int)(size - from), src + from);
    free(root);
    return n >= 0 ? APD_OK : apd_fail(err, APD_NOMEM, "the index of %s", src);
}

int apd_source_is_index(const char *path)
{
    struct apd_err ignored;
    char magic[8];
    int fd, yes;

    if (apd_regular_open(path, &fd, NULL, &ignored) != APD_OK)
        return 0;
    yes = read(fd, magic, sizeof magic) == sizeof magic &&
          memcmp(magic, APD_MANIFEST_MAGIC, sizeof magic) == 0;
    close(fd);
    return yes;
}

enum apd_code apd_source_find_index(const char *src, char **out, struct apd_err *err)
{
    if (apd_source_is_index(src)) {
        *out = strdup(src);
        return *out != NULL ? APD_OK : apd_fail(err, APD_NOMEM, "the name %s", src);
    }
    APD_TRY(apd_source_index_path(src, out, err));
    if (access(*out, F_OK) == 0)
        return APD_OK;
    (void)apd_fail(err, APD_CONFIG, "%s is no manifest, and there is no %s: %s", src, *out,
                   "run advprop data index first");
    free(*out);
    *out = NULL;
    return APD_CONFIG;
}

/* ---------------------------------------------------------------- stamps */

static enum apd_code stamp_end(struct apd_sha256 *hash, uint64_t *out, struct apd_err *err)
{
    char hex[APD_SHA256_HEX];

    APD_TRY(apd_sha256_hex(hash, hex, err));
    hex[16] = '\0';
    *out = strtoull(hex, NULL, 16);
    return APD_OK;
}

/* ---------------------------------------------------------------- folders */

static enum apd_code cut_folder(struct apd_source *source, struct apd_source_shard *shard,
                                struct apd_err *err)
{
    struct apd_sha256 *hash = NULL;
    enum apd_code rc;

    shard->path = "";
    APD_GO(apd_sha256_create(&hash, err));
    for (uint64_t i = shard->first_file; i < shard->first_file + shard->files; i++) {
        const struct apd_folder_file *file = &source->folder.file[i];

        shard->bytes += file->size;
        APD_GO(apd_stamp_add(hash, file->path, file->size, file->mtime_ns, err));
    }
    rc = stamp_end(hash, &shard->stamp, err);
done:
    apd_sha256_destroy(&hash);
    return rc;
}

static enum apd_code open_folder(struct apd_source *source, unsigned threads,
                                 const atomic_int *stop, struct apd_err *err)
{
    uint64_t count;

    APD_TRY(apd_folder_scan(source->root, threads, stop, &source->folder, err));
    count = source->folder.count;
    source->shards = (uint32_t)((count + APD_SHARD_SAMPLES - 1) / APD_SHARD_SAMPLES);
    source->shard = calloc((size_t)source->shards + 1, sizeof *source->shard);
    if (source->shard == NULL)
        return apd_fail(err, APD_NOMEM, "%u shards", source->shards);
    for (uint32_t s = 0; s < source->shards; s++) {
        struct apd_source_shard *shard = &source->shard[s];

        shard->first_file = (uint64_t)s * APD_SHARD_SAMPLES;
        shard->files = count - shard->first_file;
        if (shard->files > APD_SHARD_SAMPLES)
            shard->files = APD_SHARD_SAMPLES;
        APD_TRY(cut_folder(source, shard, err));
    }
    return APD_OK;
}

/* ---------------------------------------------------------------- tar shards */

static enum apd_code look_at_tar(struct apd_source *source, uint32_t s, size_t prefix,
                                 struct apd_err *err)
{
    struct apd_source_shard *shard = &source->shard[s];
    const char *path = source->names.name[s];
    struct apd_sha256 *hash = NULL;
    enum apd_code rc;
    struct stat st;

    if (stat(path, &st) != 0)
        return apd_fail_errno(err, "%s", path);
    if (!S_ISREG(st.st_mode))
        return apd_fail(err, APD_DATA, "%s is no regular file", path);
    shard->path = path + prefix;
    shard->files = 1;
    shard->bytes = (uint64_t)st.st_size;
    shard->mtime_ns = apd_mtime_ns(&st);
    APD_GO(apd_sha256_create(&hash, err));
    APD_GO(apd_stamp_add(hash, shard->path, shard->bytes, shard->mtime_ns, err));
    rc = stamp_end(hash, &shard->stamp, err);
done:
    apd_sha256_destroy(&hash);
    return rc;
}

/* ROOT/classes.txt: a name a line, class 0 first. */
static enum apd_code read_classes(struct apd_source *source, struct apd_err *err)
{
    char *path = NULL, *text = NULL;
    enum apd_code rc = APD_OK;
    size_t size;

    if (asprintf(&path, "%s/" CLASSES_NAME, source->root) < 0)
        return apd_fail(err, APD_NOMEM, "classes of %s", source->root);
    if (access(path, F_OK) != 0)
        goto done;
    APD_GO(apd_read_file(path, CLASSES_FILE_CAP, &text, &size, err));
    for (const char *line = text; line < text + size;) {
        size_t n = strcspn(line, "\n");

        APD_GO(apd_names_add(&source->classes, line, n, err));
        line += n + 1;
    }
done:
    free(text);
    free(path);
    return rc;
}

static enum apd_code open_tar(struct apd_source *source, const char *src, struct apd_err *err)
{
    size_t prefix = root_size(src);

    APD_TRY(apd_shard_names(src, &source->names, err));
    /* Names begin with the root as it is written in src, and slashes. */
    source->shards = (uint32_t)source->names.count;
    source->shard = calloc((size_t)source->shards + 1, sizeof *source->shard);
    if (source->shard == NULL)
        return apd_fail(err, APD_NOMEM, "%u shards", source->shards);
    for (uint32_t s = 0; s < source->shards; s++) {
        size_t skip = prefix;

        while (skip > 0 && source->names.name[s][skip] == '/')
            skip++;
        APD_TRY(look_at_tar(source, s, skip, err));
    }
    return read_classes(source, err);
}

/* ---------------------------------------------------------------- either */

/* Of a folder: whether it holds *.tar, folders, or both. */
static enum apd_code guess_kind(const char *src, enum apd_manifest_kind *out, struct apd_err *err)
{
    int tars = 0, folders = 0;
    struct dirent *entry;
    DIR *dir = opendir(src);

    if (dir == NULL)
        return apd_fail_errno(err, "reading folder %s", src);
    while ((entry = readdir(dir)) != NULL) {
        size_t n = strlen(entry->d_name);
        struct stat st;

        if (entry->d_name[0] == '.')
            continue;
        if (n > 4 && strcmp(entry->d_name + n - 4, ".tar") == 0)
            tars = 1;
        else if (fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode))
            folders = 1;
    }
    closedir(dir);
    if (tars && folders)
        return apd_fail(err, APD_CONFIG,
                        "%s has both .tar files and folders: say --format=tar or --format=folder",
                        src);
    *out = tars ? APD_MANIFEST_TAR : APD_MANIFEST_FOLDER;
    return APD_OK;
}

enum apd_code apd_source_open(const char *src, int kind, unsigned threads, const atomic_int *stop,
                              struct apd_source *out, struct apd_err *err)
{
    *out = (struct apd_source){.kind = (enum apd_manifest_kind)kind};
    if (kind == 0 && is_folder(src))
        APD_TRY(guess_kind(src, &out->kind, err));
    else if (kind == 0)
        out->kind = APD_MANIFEST_TAR;
    APD_TRY(root_of(src, &out->root, err));
    return out->kind == APD_MANIFEST_TAR ? open_tar(out, src, err)
                                         : open_folder(out, threads, stop, err);
}

void apd_source_fini(struct apd_source *source)
{
    free(source->root);
    free(source->shard);
    apd_names_fini(&source->names);
    apd_names_fini(&source->classes);
    apd_folder_fini(&source->folder);
    *source = (struct apd_source){0};
}
