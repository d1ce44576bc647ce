#include "worker/index/pack.h"

#include "base/fs.h"
#include "worker/data/idx.h"
#include "worker/index/out_file.h"
#include "worker/index/pack_source.h"
#include "worker/index/parallel.h"
#include "worker/index/tar_write.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NOTE_CAP = 4096, CLASSES_CAP = 64 << 20, PREFIX_MAX = 100 };

struct pack {
    const struct apd_pack_settings *settings;
    const struct apd_pack_source *source;
    const char *prefix;
    uint64_t shards;
    atomic_ullong written;
};

static enum apd_code path_of(const struct pack *pack, const char *name, char out[PATH_MAX],
                             struct apd_err *err)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", pack->settings->dst, name);

    return n >= 0 && n < PATH_MAX ? APD_OK : apd_fail(err, APD_USAGE, "a path of %d bytes", n);
}

/* ---------------------------------------------------------------- shards */

static enum apd_code put_sample(const struct pack *pack, uint64_t sample, struct apd_out_file *out,
                                struct apd_sample_bytes *bytes, struct apd_err *err)
{
    struct apd_reading *reading = pack->settings->reading;
    char name[32], label_text[16];
    const char *extension;
    int32_t label;

    if (reading->stop != NULL && atomic_load(reading->stop) != 0)
        return apd_fail(err, APD_CANCELED, "stopped by a signal");
    APD_TRY(apd_pack_source_read(pack->source, sample, bytes, &extension, &label, err));
    (void)snprintf(name, sizeof name, "%09" PRIu64 ".%s", sample, extension);
    APD_TRY(apd_tar_put(out, name, bytes->data, bytes->size, err));
    (void)snprintf(name, sizeof name, "%09" PRIu64 ".cls", sample);
    (void)snprintf(label_text, sizeof label_text, "%" PRId32, label);
    APD_TRY(apd_tar_put(out, name, label_text, strlen(label_text), err));
    atomic_fetch_add(&reading->samples, 1);
    atomic_fetch_add(&reading->bytes, bytes->size);
    return APD_OK;
}

static enum apd_code write_shard(void *context, size_t shard, struct apd_err *err)
{
    struct pack *pack = context;
    uint64_t each = pack->settings->shard_samples, first = shard * each;
    uint64_t left = pack->source->samples - first, count = left < each ? left : each;
    struct apd_sample_bytes bytes = {0};
    struct apd_out_file out = {0};
    char name[PREFIX_MAX + 32], path[PATH_MAX];
    enum apd_code rc;

    (void)snprintf(name, sizeof name, "%s-%06zu.tar", pack->prefix, shard);
    APD_TRY(path_of(pack, name, path, err));
    if (access(path, F_OK) == 0)
        return APD_OK; /* of this pack, says the note, and whole */
    APD_GO(apd_out_open(&out, path, err));
    for (uint64_t i = 0; i < count; i++)
        APD_GO(put_sample(pack, first + i, &out, &bytes, err));
    APD_GO(apd_tar_put_end(&out, err));
    APD_GO(apd_out_commit(&out, err));
    atomic_fetch_add(&pack->written, 1);
done:
    apd_out_fini(&out);
    apd_sample_bytes_fini(&bytes);
    return rc;
}

/* ---------------------------------------------------------------- what is there */

static int is_shard(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(name, prefix, n) == 0 && name[n] == '-' &&
           strspn(name + n + 1, "0123456789") >= 6 && strstr(name + n, ".tar") != NULL;
}

/* Whether a file of this name may be written by this pack. */
static int is_own(const void *context, const char *name)
{
    const struct pack *pack = context;
    char note[PREFIX_MAX + 32];

    (void)snprintf(note, sizeof note, ".%s.advprop-pack", pack->prefix);
    return is_shard(name, pack->prefix) || strcmp(name, note) == 0 ||
           strcmp(name, "classes.txt") == 0;
}

static enum apd_code refuse_foreign_shards(const struct pack *pack, struct apd_err *err)
{
    const char *dst = pack->settings->dst;
    enum apd_code rc = APD_OK;
    struct dirent *entry;
    DIR *dir = opendir(dst);

    if (dir == NULL)
        return apd_fail_errno(err, "reading folder %s", dst);
    while (rc == APD_OK && (entry = readdir(dir)) != NULL)
        if (is_shard(entry->d_name, pack->prefix))
            rc = apd_fail(err, APD_CONFIG,
                          "%s/%s is there and was not written by this command: choose another "
                          "--prefix or DST, or remove it",
                          dst, entry->d_name);
    closedir(dir);
    return rc;
}

/* The note of what is packed under this prefix: none yet, the same, or another. */
static enum apd_code check_note(const struct pack *pack, struct apd_err *err)
{
    char text[NOTE_CAP], stamp[APD_SHA256_HEX], name[PREFIX_MAX + 32], path[PATH_MAX];
    char *found = NULL;
    enum apd_code rc;

    APD_TRY(apd_pack_source_stamp(pack->source, stamp, err));
    (void)snprintf(text, sizeof text,
                   "advprop pack 1\nsamples %" PRIu64 "\nshard_samples %" PRIu32 "\nsource %s\n",
                   pack->source->samples, pack->settings->shard_samples, stamp);
    (void)snprintf(name, sizeof name, ".%s.advprop-pack", pack->prefix);
    APD_TRY(path_of(pack, name, path, err));
    if (access(path, F_OK) != 0) {
        APD_TRY(refuse_foreign_shards(pack, err));
        return apd_write_file(path, text, strlen(text), 1, err);
    }
    APD_TRY(apd_read_file(path, NOTE_CAP, &found, NULL, err));
    rc = strcmp(found, text) == 0
             ? APD_OK
             : apd_fail(err, APD_CONFIG,
                        "%s: %s-*.tar there were packed from another state of the source or with "
                        "another --shard-samples: choose another --prefix or DST, or remove them "
                        "and this file",
                        path, pack->prefix);
    free(found);
    return rc;
}

/* Class names for `advprop data index`; both splits of a data set share them. */
static enum apd_code write_classes(const struct pack *pack, struct apd_err *err)
{
    const struct apd_names *classes = &pack->source->folder.classes;
    char path[PATH_MAX], *text = NULL, *found = NULL;
    size_t size = 0, used = 0;
    enum apd_code rc;

    for (size_t i = 0; i < classes->count; i++) {
        if (strchr(classes->name[i], '\n') != NULL)
            return apd_fail(err, APD_DATA, "the name of class %zu has a line end in it", i);
        size += strlen(classes->name[i]) + 1;
    }
    text = malloc(size + 1);
    if (text == NULL)
        return apd_fail(err, APD_NOMEM, "%zu bytes of class names", size);
    for (size_t i = 0; i < classes->count; i++)
        used += (size_t)sprintf(text + used, "%s\n", classes->name[i]);
    APD_GO(path_of(pack, "classes.txt", path, err));
    if (access(path, F_OK) != 0) {
        rc = apd_write_file(path, text, size, 1, err);
        goto done;
    }
    APD_GO(apd_read_file(path, CLASSES_CAP, &found, NULL, err));
    if (strcmp(found, text) != 0)
        rc = apd_fail(err, APD_CONFIG, "%s has other classes than %s: choose another DST", path,
                      pack->settings->src);
done:
    free(text);
    free(found);
    return rc;
}

/* ---------------------------------------------------------------- all of it */

static enum apd_code pack_split(const struct apd_pack_settings *settings,
                                const struct apd_pack_source *source, const char *prefix,
                                struct apd_pack_report *out, struct apd_err *err)
{
    uint64_t each = settings->shard_samples;
    struct pack pack = {.settings = settings,
                        .source = source,
                        .prefix = prefix,
                        .shards = (source->samples + each - 1) / each};
    struct apd_parallel work = {.count = pack.shards,
                                .threads = settings->threads,
                                .body = write_shard,
                                .context = &pack,
                                .stop = settings->reading->stop,
                                .tick = settings->tick,
                                .tick_context = settings->context};

    if (prefix[0] == '\0' || strlen(prefix) > PREFIX_MAX || strchr(prefix, '/') != NULL)
        return apd_fail(err, APD_USAGE, "prefix \"%s\": expected a name of 1 to %d bytes", prefix,
                        PREFIX_MAX);
    if (source->samples == 0)
        return apd_fail(err, APD_CONFIG, "%s has no images", settings->src);
    APD_TRY(apd_mkdirs(settings->dst, 0755, err));
    APD_TRY(apd_out_sweep(settings->dst, is_own, &pack, err));
    APD_TRY(check_note(&pack, err));
    if (source->folder.classes.count > 0)
        APD_TRY(write_classes(&pack, err));
    APD_TRY(apd_parallel_run(&work, err));
    out->samples += source->samples;
    out->left_out += source->folder.left_out.count;
    out->shards += pack.shards;
    out->shards_written += atomic_load(&pack.written);
    return APD_OK;
}

static enum apd_code pack_idx(const struct apd_pack_settings *settings, struct apd_pack_report *out,
                              struct apd_err *err)
{
    uint32_t classes = 0; /* of the training set; the test set must keep to them */

    for (int split = APD_SPLIT_TRAIN; split <= APD_SPLIT_TEST; split++) {
        const char *name = split == APD_SPLIT_TRAIN ? "train" : "test";
        struct apd_pack_source source;
        char prefix[PREFIX_MAX + 16];
        enum apd_code rc;

        (void)snprintf(prefix, sizeof prefix, "%.*s%s%s", PREFIX_MAX,
                       settings->prefix != NULL ? settings->prefix : "",
                       settings->prefix != NULL ? "-" : "", name);
        APD_TRY(apd_pack_source_idx(settings->src, (enum apd_split)split, classes, &source, err));
        classes = source.dataset->classes;
        rc = pack_split(settings, &source, prefix, out, err);
        apd_pack_source_fini(&source);
        APD_TRY(rc);
    }
    return APD_OK;
}

static enum apd_code pack_folder(const struct apd_pack_settings *settings,
                                 struct apd_pack_report *out, struct apd_err *err)
{
    struct apd_pack_source source;
    char real[PATH_MAX];
    const char *prefix = settings->prefix;
    enum apd_code rc;

    if (prefix == NULL) {
        if (realpath(settings->src, real) == NULL)
            return apd_fail_errno(err, "%s", settings->src);
        prefix = strrchr(real, '/') + 1;
    }
    APD_TRY(apd_pack_source_folder(settings->src, settings->threads, settings->reading->stop,
                                   &source, err));
    for (size_t i = 0; i < source.folder.left_out.count; i++)
        settings->say(settings->context, source.folder.left_out.name[i]);
    rc = pack_split(settings, &source, prefix, out, err);
    apd_pack_source_fini(&source);
    return rc;
}

enum apd_code apd_pack(const struct apd_pack_settings *settings, struct apd_pack_report *out,
                       struct apd_err *err)
{
    *out = (struct apd_pack_report){0};
    return apd_idx_is_there(settings->src) ? pack_idx(settings, out, err)
                                           : pack_folder(settings, out, err);
}
