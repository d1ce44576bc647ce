#include "worker/index/index.h"

#include "worker/data/regular.h"
#include "worker/index/journal.h"
#include "worker/index/manifest_write.h"
#include "worker/index/out_file.h"
#include "worker/index/parallel.h"
#include "worker/index/source.h"

#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct run {
    const struct apd_index_settings *settings;
    struct apd_index_report *report;
    struct apd_source source;
    struct apd_journal *journal;
    uint32_t *todo; /* [report->shards_read] shards that the journal lacks */
    pthread_mutex_t say_lock;
};

static void say(struct run *run, const char *where, const char *what)
{
    char line[PATH_MAX + 512];

    (void)snprintf(line, sizeof line, "%s: %s", where, what);
    pthread_mutex_lock(&run->say_lock);
    run->settings->say(run->settings->context, line);
    pthread_mutex_unlock(&run->say_lock);
}

/* ---------------------------------------------------------------- reading */

static enum apd_code changed(const char *path, struct apd_err *err)
{
    return apd_fail(err, APD_DATA, "%s changed while it was read: start again", path);
}

static enum apd_code read_tar(struct run *run, const struct apd_source_shard *shard,
                              const char *path, struct apd_shard_content *out, struct apd_err *err)
{
    struct stat st;

    APD_TRY(apd_shard_read_tar(path, run->settings->reading, out, err));
    if (stat(path, &st) != 0 || out->bytes != shard->bytes || apd_mtime_ns(&st) != shard->mtime_ns)
        return changed(path, err);
    for (size_t i = 0; i < out->problems.count; i++)
        say(run, path, out->problems.name[i]);
    return APD_OK;
}

static enum apd_code read_files(struct run *run, const struct apd_source_shard *shard,
                                struct apd_shard_content *out, struct apd_err *err)
{
    struct apd_sha256 *hash = NULL;
    enum apd_code rc;

    APD_GO(apd_sha256_create(&hash, err));
    for (uint64_t i = shard->first_file; i < shard->first_file + shard->files; i++) {
        const struct apd_folder_file *file = &run->source.folder.file[i];
        struct apd_manifest_sample sample;
        char path[PATH_MAX];
        struct stat st;

        (void)snprintf(path, sizeof path, "%s/%s", run->source.root, file->path);
        APD_GO(apd_shard_read_file(path, run->settings->reading, hash, &sample, &st, err));
        if (sample.size != file->size || apd_mtime_ns(&st) != file->mtime_ns) {
            rc = changed(path, err);
            goto done;
        }
        APD_GO(apd_shard_content_add(out, &sample, err));
    }
    out->bytes = shard->bytes;
    rc = apd_sha256_hex(hash, out->sha256, err);
done:
    apd_sha256_destroy(&hash);
    return rc;
}

static enum apd_code read_shard(void *context, size_t i, struct apd_err *err)
{
    struct run *run = context;
    uint32_t s = run->todo[i];
    const struct apd_source_shard *shard = &run->source.shard[s];
    struct apd_shard_content content = {0};
    enum apd_code rc;

    if (run->source.kind == APD_MANIFEST_TAR)
        APD_GO(read_tar(run, shard, run->source.names.name[s], &content, err));
    else
        APD_GO(read_files(run, shard, &content, err));
    rc = apd_journal_append(run->journal, shard->stamp, &content, err);
done:
    apd_shard_content_fini(&content);
    return rc;
}

/* ---------------------------------------------------------------- what is known already */

static enum apd_code take_over(struct run *run, const struct apd_manifest *old, uint32_t s,
                               struct apd_err *err)
{
    struct apd_shard_content content = {0};
    struct apd_manifest_shard shard;
    enum apd_code rc = APD_OK;

    apd_manifest_shard(old, s, &shard);
    content.bytes = shard.bytes;
    content.left_out = shard.left_out;
    memcpy(content.sha256, shard.sha256, sizeof content.sha256);
    for (uint32_t i = 0; i < shard.samples; i++) {
        struct apd_manifest_sample sample;

        apd_manifest_sample(old, shard.first_sample + i, &sample);
        APD_GO(apd_shard_content_add(&content, &sample, err));
    }
    rc = apd_journal_append(run->journal, shard.stamp, &content, err);
done:
    apd_shard_content_fini(&content);
    return rc;
}

/* Puts the shards of an older manifest into the journal, whether they are still of use or not. */
static enum apd_code take_over_all(struct run *run, struct apd_err *err)
{
    struct apd_manifest *old = NULL;
    char *lacks = NULL;
    uint32_t shards;
    enum apd_code rc;

    if (access(run->report->path, F_OK) != 0)
        return APD_OK;
    if (!apd_source_is_index(run->report->path))
        return apd_fail(err, APD_CONFIG, "%s is there and is no manifest: choose another --out",
                        run->report->path);
    if (apd_manifest_open(run->report->path, &old, err) != APD_OK) {
        say(run, err->msg, "all is read anew");
        return APD_OK;
    }
    shards = apd_manifest_info(old)->shards;
    lacks = calloc((size_t)shards + 1, 1);
    if (lacks == NULL) {
        rc = apd_fail(err, APD_NOMEM, "%u shards", shards);
        goto done;
    }
    for (uint32_t s = 0; s < shards; s++) {
        struct apd_manifest_shard shard;

        apd_manifest_shard(old, s, &shard);
        lacks[s] = !apd_journal_has(run->journal, shard.stamp);
    }
    rc = APD_OK;
    for (uint32_t s = 0; s < shards; s++)
        if (lacks[s])
            APD_GO(take_over(run, old, s, err));
done:
    free(lacks);
    apd_manifest_close(&old);
    return rc;
}

static enum apd_code list_todo(struct run *run, struct apd_err *err)
{
    const struct apd_source *source = &run->source;

    run->todo = calloc((size_t)source->shards + 1, sizeof *run->todo);
    if (run->todo == NULL)
        return apd_fail(err, APD_NOMEM, "%u shards", source->shards);
    for (uint32_t s = 0; s < source->shards; s++)
        if (!apd_journal_has(run->journal, source->shard[s].stamp)) {
            run->todo[run->report->shards_read++] = s;
            run->report->total_bytes += source->shard[s].bytes;
        }
    return APD_OK;
}

static enum apd_code read_all(struct run *run, struct apd_err *err)
{
    const struct apd_index_settings *settings = run->settings;
    struct apd_parallel work = {.count = run->report->shards_read,
                                .threads = settings->threads,
                                .body = read_shard,
                                .context = run,
                                .stop = settings->reading->stop,
                                .tick = settings->tick,
                                .tick_context = settings->context};

    return apd_parallel_run(&work, err);
}

/* ---------------------------------------------------------------- the manifest */

static enum apd_code add_up_shard(struct run *run, uint32_t s, int32_t *largest,
                                  struct apd_err *err)
{
    const struct apd_source *source = &run->source;
    struct apd_index_report *report = run->report;
    struct apd_shard_content content = {0};
    enum apd_code rc;

    APD_GO(apd_journal_read(run->journal, source->shard[s].stamp, &content, err));
    report->samples += content.samples;
    report->bytes += content.bytes;
    report->left_out += content.left_out;
    for (size_t i = 0; source->kind == APD_MANIFEST_TAR && i < content.samples; i++) {
        int32_t label = content.sample[i].label;

        *largest = label > *largest ? label : *largest;
        if (source->classes.count > 0 && (size_t)label >= source->classes.count) {
            rc = apd_fail(err, APD_DATA,
                          "%s: label of the image at offset %" PRIu64
                          " is %d, expected below %zu, the lines of %s/classes.txt",
                          source->names.name[s], content.sample[i].offset, label,
                          source->classes.count, source->root);
            goto done;
        }
    }
done:
    apd_shard_content_fini(&content);
    return rc;
}

static enum apd_code add_up(struct run *run, struct apd_err *err)
{
    const struct apd_source *source = &run->source;
    const struct apd_names *names =
        source->kind == APD_MANIFEST_TAR ? &source->classes : &source->folder.classes;
    int32_t largest = 0;

    for (uint32_t s = 0; s < source->shards; s++)
        APD_TRY(add_up_shard(run, s, &largest, err));
    run->report->shards = source->shards;
    run->report->classes = names->count > 0 ? (uint32_t)names->count : (uint32_t)largest + 1;
    if (run->report->samples == 0)
        return apd_fail(err, APD_CONFIG,
                        "%s has no samples (%" PRIu64 " were left out, %" PRIu64
                        " files have no image's name)",
                        run->settings->src, run->report->left_out, run->report->other);
    return APD_OK;
}

/* The folder that the manifest lies in. */
static void folder_of_manifest(const struct run *run, char out[PATH_MAX])
{
    const char *path = run->report->path, *slash = strrchr(path, '/');

    (void)snprintf(out, PATH_MAX, "%.*s", slash != NULL ? (int)(slash - path) + 1 : 1,
                   slash != NULL ? path : ".");
}

static int is_manifest(const void *context, const char *name)
{
    const char *path = context, *slash = strrchr(path, '/');

    return strcmp(name, slash != NULL ? slash + 1 : path) == 0;
}

/* With the journal's lock: nobody else writes this manifest. */
static enum apd_code sweep(const struct run *run, struct apd_err *err)
{
    char folder[PATH_MAX];

    folder_of_manifest(run, folder);
    return apd_out_sweep(folder, is_manifest, run->report->path, err);
}

/* "." if the manifest lies in the root, so that both can move together. */
static enum apd_code root_as_seen(const struct run *run, char out[PATH_MAX], struct apd_err *err)
{
    char root[PATH_MAX], folder[PATH_MAX];

    folder_of_manifest(run, folder);
    if (realpath(run->source.root, root) == NULL)
        return apd_fail_errno(err, "%s", run->source.root);
    if (realpath(folder, out) == NULL)
        return apd_fail_errno(err, "%s", folder);
    (void)snprintf(out, PATH_MAX, "%s", strcmp(root, out) == 0 ? "." : root);
    return APD_OK;
}

static enum apd_code put_classes(const struct run *run, struct apd_manifest_writer *writer,
                                 struct apd_err *err)
{
    const struct apd_names *names =
        run->source.kind == APD_MANIFEST_TAR ? &run->source.classes : &run->source.folder.classes;

    for (uint32_t i = 0; i < run->report->classes; i++) {
        char number[16];

        (void)snprintf(number, sizeof number, "%" PRIu32, i);
        APD_TRY(apd_manifest_put_class(writer, names->count > 0 ? names->name[i] : number, err));
    }
    return APD_OK;
}

static enum apd_code put_shard(struct run *run, struct apd_manifest_writer *writer, uint32_t s,
                               struct apd_err *err)
{
    const struct apd_source_shard *source = &run->source.shard[s];
    struct apd_shard_content content = {0};
    struct apd_manifest_shard shard = {.path = source->path, .stamp = source->stamp};
    enum apd_code rc;

    APD_GO(apd_journal_read(run->journal, source->stamp, &content, err));
    shard.samples = (uint32_t)content.samples;
    shard.left_out = (uint32_t)content.left_out;
    shard.bytes = content.bytes;
    memcpy(shard.sha256, content.sha256, sizeof shard.sha256);
    rc = apd_manifest_put_shard(writer, &shard, err);
done:
    apd_shard_content_fini(&content);
    return rc;
}

static enum apd_code put_samples(struct run *run, struct apd_manifest_writer *writer, uint32_t s,
                                 struct apd_err *err)
{
    const struct apd_source_shard *source = &run->source.shard[s];
    struct apd_shard_content content = {0};
    enum apd_code rc;

    APD_GO(apd_journal_read(run->journal, source->stamp, &content, err));
    for (size_t i = 0; i < content.samples; i++) {
        struct apd_manifest_sample *sample = &content.sample[i];

        if (run->source.kind == APD_MANIFEST_FOLDER) {
            /* The labels of a folder's files change when a class joins, their bytes do not. */
            const struct apd_folder_file *file = &run->source.folder.file[source->first_file + i];

            sample->path = file->path;
            sample->label = (int32_t)file->label;
        }
        APD_GO(apd_manifest_put_sample(writer, sample, err));
    }
done:
    apd_shard_content_fini(&content);
    return rc;
}

static enum apd_code write_manifest(struct run *run, struct apd_err *err)
{
    struct apd_index_report *report = run->report;
    char root[PATH_MAX];
    struct apd_manifest_info info = {.kind = run->source.kind,
                                     .samples = report->samples,
                                     .classes = report->classes,
                                     .shards = report->shards,
                                     .left_out = report->left_out,
                                     .root = root};
    struct apd_manifest_writer *writer = NULL;
    enum apd_code rc;

    APD_TRY(root_as_seen(run, root, err));
    APD_GO(apd_manifest_create(report->path, &info, &writer, err));
    APD_GO(put_classes(run, writer, err));
    for (uint32_t s = 0; s < report->shards; s++)
        APD_GO(put_shard(run, writer, s, err));
    for (uint32_t s = 0; s < report->shards; s++)
        APD_GO(put_samples(run, writer, s, err));
    rc = apd_manifest_commit(writer, report->digest, err);
done:
    apd_manifest_writer_destroy(&writer);
    return rc;
}

/* ---------------------------------------------------------------- all of it */

static enum apd_code open_source(struct run *run, struct apd_err *err)
{
    const struct apd_index_settings *settings = run->settings;
    const struct apd_folder *folder = &run->source.folder;

    if (settings->out != NULL) {
        run->report->path = strdup(settings->out);
        if (run->report->path == NULL)
            return apd_fail(err, APD_NOMEM, "the name %s", settings->out);
    } else {
        APD_TRY(apd_source_index_path(settings->src, &run->report->path, err));
    }
    APD_TRY(apd_source_open(settings->src, settings->kind, settings->threads,
                            settings->reading->stop, &run->source, err));
    for (size_t i = 0; i < folder->left_out.count; i++)
        say(run, run->source.root, folder->left_out.name[i]);
    run->report->left_out = folder->left_out.count;
    run->report->hidden = folder->hidden;
    run->report->other = folder->other;
    return APD_OK;
}

static enum apd_code open_journal(struct run *run, struct apd_err *err)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s.partial", run->report->path);

    if (n < 0 || n >= PATH_MAX)
        return apd_fail(err, APD_USAGE, "a path of %d bytes, expected below %d", n, PATH_MAX);
    if (apd_journal_open(path, &run->journal, err) == APD_OK)
        return APD_OK;
    if (err->code == APD_IO && run->settings->out == NULL)
        (void)apd_prefix(err, "the index cannot be beside the data (--out FILE puts it elsewhere)");
    return err->code;
}

enum apd_code apd_index(const struct apd_index_settings *settings, struct apd_index_report *out,
                        struct apd_err *err)
{
    struct run run = {.settings = settings, .report = out, .say_lock = PTHREAD_MUTEX_INITIALIZER};
    enum apd_code rc;

    *out = (struct apd_index_report){0};
    APD_GO(open_source(&run, err));
    APD_GO(open_journal(&run, err));
    APD_GO(sweep(&run, err));
    APD_GO(take_over_all(&run, err));
    APD_GO(list_todo(&run, err));
    APD_GO(read_all(&run, err));
    APD_GO(add_up(&run, err));
    APD_GO(write_manifest(&run, err));
    rc = apd_journal_remove(run.journal, err);
done:
    apd_journal_close(&run.journal);
    apd_source_fini(&run.source);
    free(run.todo);
    pthread_mutex_destroy(&run.say_lock);
    return rc;
}
