/* advprop ckpt ls: what a checkpoint says of itself, or which checkpoints a run has committed. */
#include "base/clock.h"
#include "worker/ckpt/ckpt.h"
#include "worker/ckpt/source.h"
#include "worker/show.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---------------------------------------------------------------- a file */

/* What is trained: neither statistics nor what goes with a weight. */
static int is_parameter(const char *name)
{
    return apd_ckpt_source_is_model(name) && strstr(name, ".running_") == NULL &&
           strstr(name, ".num_batches_tracked") == NULL;
}

static json_t *tensor_json(const struct apd_tensor *tensor)
{
    char shape[APD_SHAPE_TEXT];

    apd_shape_text(tensor->dims, tensor->shape, shape);
    return json_pack("{s:s, s:s, s:s, s:I}", "name", tensor->name, "dtype",
                     apd_dtype_name(tensor->dtype), "shape", shape, "bytes",
                     (json_int_t)apd_tensor_bytes(tensor));
}

static int list_tensors(const struct apd_safetensors *file, json_t *out)
{
    for (size_t i = 0; i < apd_safetensors_count(file); i++)
        if (json_array_append_new(out, tensor_json(apd_safetensors_at(file, i))) != 0)
            return -1;
    return 0;
}

static int list_metadata(const struct apd_safetensors *file, json_t *out)
{
    size_t count;
    const struct apd_meta *metas = apd_safetensors_metas(file, &count);

    for (size_t i = 0; i < count; i++)
        if (json_object_set_new(out, metas[i].key, json_string(metas[i].value)) != 0)
            return -1;
    return 0;
}

/* NULL: no memory. */
static json_t *file_json(const struct apd_safetensors *file, const char *path, int with_tensors)
{
    size_t count = apd_safetensors_count(file);
    json_t *metadata = json_object(), *tensors = with_tensors ? json_array() : NULL;
    uint64_t parameters = 0, bytes = 0;

    for (size_t i = 0; i < count; i++) {
        const struct apd_tensor *tensor = apd_safetensors_at(file, i);

        bytes += apd_tensor_bytes(tensor);
        parameters += is_parameter(tensor->name) ? apd_tensor_elems(tensor) : 0;
    }
    if (list_metadata(file, metadata) != 0 || (with_tensors && list_tensors(file, tensors) != 0)) {
        json_decref(metadata);
        json_decref(tensors);
        return NULL;
    }
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:o*}", "path", apd_show_string(path), "metadata",
                     metadata, "tensor_count", (json_int_t)count, "parameters",
                     (json_int_t)parameters, "tensor_bytes", (json_int_t)bytes, "tensors", tensors);
}

static void print_metadata(const json_t *metadata)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)metadata, key, value)
    {
        const char *text = json_string_value(value), *line = strchr(text, '\n');

        apd_show_text(key, 17, stdout);
        putchar(' ');
        if (line == NULL)
            apd_show_text(text, 0, stdout);
        else
            printf("(text of %zu bytes: --json)", strlen(text));
        putchar('\n');
    }
}

static void print_file(const json_t *object)
{
    const json_t *tensors = json_object_get(object, "tensors");

    printf("%-17s %s\n", "file", apd_show_get(object, "path"));
    print_metadata(json_object_get(object, "metadata"));
    printf("%-17s %lld, %lld bytes\n%-17s %lld\n", "tensors",
           apd_show_count(object, "tensor_count"), apd_show_count(object, "tensor_bytes"),
           "parameters", apd_show_count(object, "parameters"));
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *one = json_array_get(tensors, i);

        apd_show_text(apd_show_get(one, "name"), 46, stdout);
        printf(" %-4s %-18s %10lld\n", apd_show_get(one, "dtype"), apd_show_get(one, "shape"),
               apd_show_count(one, "bytes"));
    }
}

static enum apd_code list_file(const struct apd_ckpt_options *options, struct apd_err *err)
{
    struct apd_safetensors *file = NULL;
    json_t *object = NULL;
    enum apd_code rc;

    APD_GO(apd_safetensors_open(options->path[0], NULL, &file, err));
    object = file_json(file, options->path[0], options->tensors);
    if (object == NULL || options->json)
        rc = apd_show_json(object, err);
    else
        print_file(object);
done:
    json_decref(object);
    apd_safetensors_close(&file);
    return rc;
}

/* ---------------------------------------------------------------- a run */

static const char *file_state(const char *run_dir, const struct apd_commit *commit)
{
    char path[APD_RUN_PATH_MAX];
    struct apd_err err;
    struct stat st;

    if (apd_run_dir_path(run_dir, commit->path, path, &err) != APD_OK || stat(path, &st) != 0)
        return "gone";
    return (uint64_t)st.st_size == commit->bytes ? "there" : "wrong size";
}

static json_t *commit_json(const char *run_dir, const struct apd_commit *commit, int is_next)
{
    char date[32];

    apd_date_format(commit->date_s, date, sizeof date);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:s, s:s, s:s, s:s, s:b}", "step",
                     (json_int_t)commit->step, "epoch", (json_int_t)commit->epoch, "generation",
                     (json_int_t)commit->generation, "main_top1", (json_int_t)commit->main_top1,
                     "main_images", (json_int_t)commit->main_images, "reason", commit->reason,
                     "bytes", (json_int_t)commit->bytes, "date", date, "path", commit->path,
                     "sha256", commit->sha256, "file", file_state(run_dir, commit), "next",
                     is_next);
}

static void print_commit(const json_t *object)
{
    long long images = apd_show_count(object, "main_images");
    char accuracy[16] = "-";

    if (images > 0)
        (void)snprintf(accuracy, sizeof accuracy, "%.2f %%",
                       100 * (double)apd_show_count(object, "main_top1") / (double)images);
    printf("%c %10lld %6lld %4lld %9s  %-9s %12lld  %.19sZ  %s\n",
           json_is_true(json_object_get(object, "next")) ? '*' : ' ',
           apd_show_count(object, "step"), apd_show_count(object, "epoch"),
           apd_show_count(object, "generation"), accuracy, apd_show_get(object, "reason"),
           apd_show_count(object, "bytes"), apd_show_get(object, "date"),
           apd_show_get(object, "file"));
}

/* Prints the records; *next: the one that the run goes on from. */
static enum apd_code print_records(const struct apd_ckpt_options *options,
                                   const struct apd_commit_list *records,
                                   const struct apd_commit_list *next, struct apd_err *err)
{
    if (!options->json)
        printf("  %10s %6s %4s %9s  %-9s %12s  %-20s  %s\n", "step", "epoch", "gen", "accuracy",
               "reason", "bytes", "date", "file");
    for (size_t i = 0; i < records->count; i++) {
        const struct apd_commit *commit = &records->commit[i];
        int is_next = next->count > 0 && strcmp(next->commit[0].path, commit->path) == 0;
        json_t *object = commit_json(options->path[0], commit, is_next);
        enum apd_code rc = APD_OK;

        if (object == NULL || options->json)
            rc = apd_show_json(object, err);
        else
            print_commit(object);
        json_decref(object);
        APD_TRY(rc);
    }
    return APD_OK;
}

static enum apd_code list_run(const struct apd_ckpt_options *options, struct apd_err *err)
{
    struct apd_commit_list records = {0}, next = {0};
    enum apd_code rc;

    APD_GO(apd_ckpt_source_records(options->path[0], &records, err));
    APD_GO(apd_commit_log_newest_good(options->path[0], &next, err));
    APD_GO(print_records(options, &records, &next, err));
    for (size_t i = 0; i < next.skipped_count; i++)
        fprintf(stderr, "passed over: %s\n", next.skipped[i]);
done:
    apd_commit_list_fini(&records);
    apd_commit_list_fini(&next);
    return rc;
}

enum apd_code apd_ckpt_ls(const struct apd_ckpt_options *options, struct apd_err *err)
{
    return apd_ckpt_source_is_run(options->path[0]) ? list_run(options, err)
                                                    : list_file(options, err);
}
