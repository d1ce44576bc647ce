/* advprop ckpt verify: is a checkpoint what it was when it was written? The file's structure, the
 * hash of the weights, values that are not finite; for a run also size and SHA-256 of the commit
 * record of every file. Everything that is wrong is named. */
#include "base/hash.h"
#include "worker/ckpt/ckpt.h"
#include "worker/ckpt/source.h"
#include "worker/ckpt/values.h"
#include "worker/show.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Adds to a list of what is wrong. */
__attribute__((format(printf, 3, 4))) static enum apd_code
blame(json_t *problems, struct apd_err *err, const char *format, ...)
{
    struct apd_err text;
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text.msg, sizeof text.msg, format, args);
    va_end(args);
    if (json_array_append_new(problems, apd_show_string(text.msg)) != 0)
        return apd_fail(err, APD_NOMEM, "list of what is wrong");
    return APD_OK;
}

/* Counts the tensor's values that are no numbers; adds it to the hash of the weights. */
static enum apd_code check_tensor(const struct apd_safetensors *file,
                                  const struct apd_tensor *tensor, struct apd_sha256 *hash,
                                  json_t *problems, struct apd_err *err)
{
    uint64_t elems = apd_tensor_elems(tensor), bad;
    void *raw = NULL;
    enum apd_code rc;

    APD_TRY(apd_values_read(file, tensor, &raw, err));
    bad = apd_values_not_finite(tensor->dtype, raw, elems);
    rc = apd_ckpt_source_is_model(tensor->name)
             ? apd_sha256_update(hash, raw, apd_tensor_bytes(tensor), err)
             : APD_OK;
    free(raw);
    if (rc == APD_OK && bad > 0)
        rc = blame(problems, err, "tensor %s: %" PRIu64 " of %" PRIu64 " values are not finite",
                   tensor->name, bad, elems);
    return rc;
}

static enum apd_code check_content(const struct apd_safetensors *file, json_t *problems,
                                   struct apd_err *err)
{
    const char *expected = apd_safetensors_meta(file, "weights_sha256");
    struct apd_sha256 *hash = NULL;
    char found[APD_SHA256_HEX];
    enum apd_code rc;

    APD_GO(apd_sha256_create(&hash, err));
    for (size_t i = 0; i < apd_safetensors_count(file); i++)
        APD_GO(check_tensor(file, apd_safetensors_at(file, i), hash, problems, err));
    APD_GO(apd_sha256_hex(hash, found, err));
    if (expected != NULL && strcmp(expected, found) != 0)
        rc = blame(problems, err, "the weights have SHA-256 %s, metadata say %.64s", found,
                   expected);
done:
    apd_sha256_destroy(&hash);
    return rc;
}

static enum apd_code check_file(const char *path, json_t *problems, struct apd_err *err)
{
    struct apd_safetensors *file = NULL;
    enum apd_code rc;

    APD_GO(apd_safetensors_open(path, NULL, &file, err));
    rc = check_content(file, problems, err);
done:
    apd_safetensors_close(&file);
    return rc;
}

static enum apd_code print_verdict(const char *path, const json_t *problems, int json,
                                   struct apd_err *err)
{
    size_t count = json_array_size(problems);

    if (json) {
        json_t *object = json_pack("{s:o, s:b, s:O}", "path", apd_show_string(path), "ok",
                                   count == 0, "problems", (json_t *)problems);
        enum apd_code rc = apd_show_json(object, err);

        json_decref(object);
        return rc;
    }
    printf("%s: %s\n", path, count == 0 ? "ok" : "bad");
    for (size_t i = 0; i < count; i++) {
        fputs("  ", stdout);
        apd_show_text(json_string_value(json_array_get(problems, i)), 0, stdout);
        putchar('\n');
    }
    return APD_OK;
}

/* One file, with its commit record if it is a run's: then not being readable is damage, too. */
static enum apd_code verify(const struct apd_ckpt_options *options, const char *path,
                            const struct apd_commit *commit, size_t *bad, struct apd_err *err)
{
    json_t *problems = json_array();
    enum apd_code rc = APD_OK;

    if (commit != NULL)
        rc = apd_commit_log_check(options->path[0], commit, err);
    if (rc == APD_DATA)
        APD_GO(blame(problems, err, "%s", err->msg));
    if (rc == APD_OK)
        rc = check_file(path, problems, err);
    if (rc == APD_DATA || (rc == APD_IO && commit != NULL))
        rc = blame(problems, err, "%s", err->msg);
    if (rc != APD_OK)
        goto done;
    APD_GO(print_verdict(path, problems, options->json, err));
    *bad += json_array_size(problems) > 0;
done:
    json_decref(problems);
    return rc;
}

/* Older checkpoints are removed in a run's life; its newest one has to be there. */
static enum apd_code verify_records(const struct apd_ckpt_options *options,
                                    const struct apd_commit_list *records, size_t *bad,
                                    struct apd_err *err)
{
    for (size_t i = 0; i < records->count; i++) {
        char path[APD_RUN_PATH_MAX];

        APD_TRY(apd_run_dir_path(options->path[0], records->commit[i].path, path, err));
        if (i + 1 == records->count || access(path, F_OK) == 0)
            APD_TRY(verify(options, path, &records->commit[i], bad, err));
    }
    return APD_OK;
}

static enum apd_code verify_run(const struct apd_ckpt_options *options, size_t *bad,
                                struct apd_err *err)
{
    struct apd_commit_list records = {0};
    json_t *lines = json_array();
    enum apd_code rc;

    APD_GO(apd_ckpt_source_records(options->path[0], &records, err));
    for (size_t i = 0; i < records.skipped_count; i++)
        APD_GO(blame(lines, err, "%s", records.skipped[i]));
    if (records.skipped_count > 0)
        APD_GO(print_verdict(options->path[0], lines, options->json, err));
    *bad += records.skipped_count > 0;
    rc = verify_records(options, &records, bad, err);
done:
    json_decref(lines);
    apd_commit_list_fini(&records);
    return rc;
}

enum apd_code apd_ckpt_verify(const struct apd_ckpt_options *options, struct apd_err *err)
{
    size_t bad = 0;

    if (apd_ckpt_source_is_run(options->path[0]))
        APD_TRY(verify_run(options, &bad, err));
    else
        APD_TRY(verify(options, options->path[0], NULL, &bad, err));
    return bad == 0 ? APD_OK : apd_fail(err, APD_DATA, "%s is damaged", options->path[0]);
}
