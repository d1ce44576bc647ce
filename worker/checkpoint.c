#include "worker/checkpoint.h"

#include "base/clock.h"
#include "worker/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef APD_VERSION
#define APD_VERSION "unknown"
#endif

/* What a tensor of the file is: a weight or statistic, the momentum of a weight, or the average of
 * a weight or statistic. */
enum part { MODEL, MOMENTUM, EMA, PARTS };
static const char *const part_prefix[PARTS] = {"", "momentum.", "ema."};

struct item {
    struct apd_tensor_info info;
    char name[sizeof "momentum." + 2 * APD_LAYER_NAME];
    enum part part;
    size_t at; /* in values */
};

struct apd_snapshot {
    const struct apd_params *params; /* not owned */
    struct item *items;
    size_t count;
    float *values;
    struct apd_progress progress;
};

static void *flat_of(const struct apd_params *params, const struct item *item)
{
    if (item->part == MOMENTUM)
        return params->momentum;
    if (item->part == EMA)
        return item->info.is_stat ? params->ema_stats : params->ema_weights;
    return item->info.is_stat ? params->stats : params->weights;
}

static int has_part(const struct apd_params *params, const struct apd_tensor_info *info,
                    enum part part)
{
    return part == MODEL || (part == MOMENTUM && !info->is_stat) ||
           (part == EMA && params->ema_weights != NULL);
}

/* The list of the file: tensors, each with its momentum and its average behind it. items NULL:
 * counts only. */
static void list_items(const struct apd_params *params, struct item *items, size_t *out_count,
                       size_t *out_values)
{
    struct apd_tensor_info info;
    size_t count = 0, values = 0;

    for (int i = 0; apd_params_tensor(params, i, &info); i++)
        for (enum part part = MODEL; part < PARTS; part++) {
            if (!has_part(params, &info, part))
                continue;
            if (items != NULL) {
                struct item *item = &items[count];

                item->info = info;
                item->part = part;
                item->at = values;
                (void)snprintf(item->name, sizeof item->name, "%s%s", part_prefix[part], info.name);
            }
            count++;
            values += info.elems;
        }
    *out_count = count;
    *out_values = values;
}

enum apd_code apd_snapshot_create(const struct apd_params *params, struct apd_snapshot **out,
                                  struct apd_err *err)
{
    struct apd_snapshot *snapshot = calloc(1, sizeof *snapshot);
    size_t values;

    if (snapshot == NULL)
        return apd_fail(err, APD_NOMEM, "snapshot");
    snapshot->params = params;
    list_items(params, NULL, &snapshot->count, &values);
    snapshot->items = calloc(snapshot->count, sizeof *snapshot->items);
    snapshot->values = malloc(values * sizeof *snapshot->values);
    if (snapshot->items == NULL || snapshot->values == NULL) {
        apd_snapshot_destroy(&snapshot);
        return apd_fail(err, APD_NOMEM, "snapshot of %zu values", values);
    }
    list_items(params, snapshot->items, &snapshot->count, &values);
    *out = snapshot;
    return APD_OK;
}

void apd_snapshot_destroy(struct apd_snapshot **snapshot)
{
    if (*snapshot == NULL)
        return;
    free((*snapshot)->items);
    free((*snapshot)->values);
    free(*snapshot);
    *snapshot = NULL;
}

enum apd_code apd_snapshot_take(struct apd_snapshot *snapshot, const struct apd_progress *progress,
                                struct apd_err *err)
{
    snapshot->progress = *progress;
    for (size_t i = 0; i < snapshot->count; i++) {
        const struct item *item = &snapshot->items[i];

        APD_TRY(apd_params_export(snapshot->params, &item->info, flat_of(snapshot->params, item),
                                  snapshot->values + item->at, err));
    }
    return APD_OK;
}

/* SHA-256 over the values of weights and statistics, in the order of the file: equal weights have
 * equal hashes whatever else the metadata says. */
static enum apd_code hash_model(const struct apd_snapshot *snapshot, char out[APD_SHA256_HEX],
                                struct apd_err *err)
{
    struct apd_sha256 *hash = NULL;
    enum apd_code rc;

    APD_GO(apd_sha256_create(&hash, err));
    for (size_t i = 0; i < snapshot->count; i++) {
        const struct item *item = &snapshot->items[i];

        if (item->part == MODEL)
            APD_GO(apd_sha256_update(hash, snapshot->values + item->at,
                                     item->info.elems * sizeof(float), err));
    }
    rc = apd_sha256_hex(hash, out, err);
done:
    apd_sha256_destroy(&hash);
    return rc;
}

static void describe(const struct apd_snapshot *snapshot, struct apd_tensor *tensors)
{
    for (size_t i = 0; i < snapshot->count; i++) {
        const struct item *item = &snapshot->items[i];

        tensors[i] = (struct apd_tensor){.name = item->name,
                                         .dtype = APD_DTYPE_F32,
                                         .dims = item->info.dims,
                                         .data = snapshot->values + item->at};
        for (int d = 0; d < item->info.dims; d++)
            tensors[i].shape[d] = (uint64_t)item->info.shape[d];
    }
}

enum { META_KEYS = 20, META_TEXT = 48 };

struct meta_list {
    struct apd_meta meta[META_KEYS];
    char text[META_KEYS][META_TEXT];
    size_t count;
};

static void meta_text(struct meta_list *list, const char *key, const char *value)
{
    list->meta[list->count++] = (struct apd_meta){key, value};
}

static void meta_number(struct meta_list *list, const char *key, uint64_t value)
{
    char *text = list->text[list->count];

    (void)snprintf(text, META_TEXT, "%" PRIu64, value);
    meta_text(list, key, text);
}

static void fill_meta(struct meta_list *list, const struct apd_snapshot *snapshot,
                      const struct apd_checkpoint_info *info, const char *weights_sha256)
{
    const struct apd_progress *progress = &snapshot->progress;
    uint64_t position = progress->step * info->batch;
    char *date = list->text[META_KEYS - 1];

    apd_date_format(apd_date_s(), date, META_TEXT);
    meta_text(list, "format", "advpropd-checkpoint");
    meta_text(list, "format_version", "1");
    meta_text(list, "written_by", "advpropd " APD_VERSION);
    meta_text(list, "date", date);
    meta_text(list, "arch", snapshot->params->arch->name);
    meta_number(list, "step", progress->step);
    meta_number(list, "cursor", position);
    meta_number(list, "epoch", position / info->samples);
    meta_number(list, "seed", (uint64_t)info->seed);
    meta_number(list, "generation", info->generation);
    meta_number(list, "evaluated_epochs", progress->evaluated_epochs);
    meta_number(list, "receipt_epoch", progress->receipt.epoch);
    meta_number(list, "receipt_samples", progress->receipt.samples);
    meta_number(list, "receipt_sum", progress->receipt.sum);
    meta_number(list, "receipt_bad", progress->receipt.bad);
    meta_number(list, "loss_scale", progress->scale.factor);
    meta_number(list, "loss_scale_steps", progress->scale.good_steps);
    meta_text(list, "plan_digest", info->plan_digest);
    meta_text(list, "config_digest", info->config_digest);
    meta_text(list, "config", info->config_yaml);
    meta_text(list, "weights_sha256", weights_sha256);
}

enum apd_code apd_snapshot_write(const struct apd_snapshot *snapshot, const char *path,
                                 const struct apd_checkpoint_info *info, uint64_t *out_bytes,
                                 char out_sha256[APD_SHA256_HEX], struct apd_err *err)
{
    struct apd_tensor *tensors = calloc(snapshot->count, sizeof *tensors);
    char weights_sha256[APD_SHA256_HEX];
    struct meta_list list = {.count = 0};
    enum apd_code rc;

    if (tensors == NULL)
        return apd_fail(err, APD_NOMEM, "list of %zu tensors", snapshot->count);
    APD_GO(hash_model(snapshot, weights_sha256, err));
    describe(snapshot, tensors);
    fill_meta(&list, snapshot, info, weights_sha256);
    rc = apd_safetensors_write(path, tensors, snapshot->count, list.meta, list.count, out_bytes,
                               out_sha256, err);
done:
    free(tensors);
    return rc;
}

/* ---------------------------------------------------------------- loading */

static enum apd_code meta_u64(const struct apd_safetensors *file, const char *path, const char *key,
                              uint64_t *out, struct apd_err *err)
{
    const char *text = apd_safetensors_meta(file, key);
    char *end;

    if (text == NULL)
        return apd_fail(err, APD_DATA, "%s: metadata has no \"%s\"", path, key);
    *out = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0')
        return apd_fail(err, APD_DATA, "%s: metadata \"%s\": expected a number, found \"%.40s\"",
                        path, key, text);
    return APD_OK;
}

static enum apd_code meta_equal(const struct apd_safetensors *file, const char *path,
                                const char *key, const char *expected, struct apd_err *err)
{
    const char *text = apd_safetensors_meta(file, key);

    if (expected == NULL || (text != NULL && strcmp(text, expected) == 0))
        return APD_OK;
    return apd_fail(err, APD_CONFIG, "%s: metadata \"%s\": expected %.64s, found %.64s", path, key,
                    expected, text == NULL ? "none" : text);
}

/* Shape of `name` in the file against what the network has. */
static enum apd_code check_shape(const char *path, const struct apd_tensor *found,
                                 const struct item *item, struct apd_err *err)
{
    char expected_text[APD_SHAPE_TEXT], found_text[APD_SHAPE_TEXT];

    apd_shape_text(item->info.dims, (const uint64_t *)item->info.shape, expected_text);
    apd_shape_text(found->dims, found->shape, found_text);
    if (strcmp(expected_text, found_text) == 0)
        return APD_OK;
    return apd_fail(err, APD_CONFIG, "%s: %s: expected %s, found %s", path, item->name,
                    expected_text, found_text);
}

/* What is taken from a file: all of a run's state, the model, or the average of the model. */
enum source { WHOLE, WEIGHTS, AVERAGE };

/* The tensor to load for an item: of a model that has none, the average is the model itself and
 * auxiliary BN is main BN. */
static void name_in_file(const struct apd_safetensors *file, const struct item *item,
                         enum source source, char *name, size_t size)
{
    const char *aux = strstr(item->name, ".aux_bn.");

    if (source == AVERAGE) {
        (void)snprintf(name, size, "%s%s", part_prefix[EMA], item->name);
        if (apd_safetensors_find(file, name) != NULL)
            return;
    }
    (void)snprintf(name, size, "%s", item->name);
    if (source != WHOLE && aux != NULL && apd_safetensors_find(file, name) == NULL)
        (void)snprintf(name + (aux - item->name), size - (size_t)(aux - item->name), ".%s",
                       aux + strlen(".aux_bn."));
}

static enum apd_code load_item(const struct apd_safetensors *file, const char *path,
                               struct apd_params *params, const struct item *item,
                               enum source source, float *values, struct apd_err *err)
{
    char name[sizeof item->name];
    const struct apd_tensor *found;

    name_in_file(file, item, source, name, sizeof name);
    found = apd_safetensors_find(file, name);
    if (found == NULL)
        return apd_fail(err, APD_DATA, "%s has no tensor \"%s\"", path, name);
    APD_TRY(check_shape(path, found, item, err));
    APD_TRY(apd_safetensors_read_floats(file, name, values, item->info.elems, err));
    return apd_params_import(params, &item->info, values, flat_of(params, item), err);
}

static int is_classifier(const struct item *item)
{
    return item->info.part == APD_PART_FC_WEIGHT || item->info.part == APD_PART_FC_BIAS;
}

static enum apd_code load_items(const struct apd_safetensors *file, const char *path,
                                struct apd_params *params, enum source source, int but_classifier,
                                struct apd_err *err)
{
    size_t count, total, largest = 0;
    struct item *items = NULL;
    float *values = NULL;
    enum apd_code rc = APD_OK;

    list_items(params, NULL, &count, &total);
    items = calloc(count, sizeof *items);
    if (items == NULL)
        return apd_fail(err, APD_NOMEM, "list of %zu tensors", count);
    list_items(params, items, &count, &total);
    for (size_t i = 0; i < count; i++)
        largest = items[i].info.elems > largest ? items[i].info.elems : largest;
    values = malloc(largest * sizeof *values);
    if (values == NULL) {
        rc = apd_fail(err, APD_NOMEM, "%zu values of a tensor", largest);
        goto done;
    }
    for (size_t i = 0; i < count; i++)
        if ((source == WHOLE || items[i].part == MODEL) &&
            !(but_classifier && is_classifier(&items[i])))
            APD_GO(load_item(file, path, params, &items[i], source, values, err));
    rc = apd_params_changed(params, err);
done:
    free(items);
    free(values);
    return rc;
}

static enum apd_code load_progress(const struct apd_safetensors *file, const char *path,
                                   struct apd_progress *out, struct apd_err *err)
{
    uint64_t epoch = 0, evaluated = 0;

    APD_TRY(meta_u64(file, path, "step", &out->step, err));
    APD_TRY(meta_u64(file, path, "receipt_epoch", &epoch, err));
    APD_TRY(meta_u64(file, path, "receipt_samples", &out->receipt.samples, err));
    APD_TRY(meta_u64(file, path, "receipt_sum", &out->receipt.sum, err));
    APD_TRY(meta_u64(file, path, "receipt_bad", &out->receipt.bad, err));
    APD_TRY(meta_u64(file, path, "evaluated_epochs", &evaluated, err));
    out->scale = (struct apd_loss_scale){0};
    if (apd_safetensors_meta(file, "loss_scale") != NULL) { /* not in files of older versions */
        APD_TRY(meta_u64(file, path, "loss_scale", &out->scale.factor, err));
        APD_TRY(meta_u64(file, path, "loss_scale_steps", &out->scale.good_steps, err));
    }
    out->receipt.epoch = (uint32_t)epoch;
    out->evaluated_epochs = (uint32_t)evaluated;
    return APD_OK;
}

enum apd_code apd_checkpoint_load(const char *path, const char *sha256, const char *config_digest,
                                  const char *plan_digest, struct apd_params *params,
                                  struct apd_progress *out_progress, struct apd_err *err)
{
    struct apd_safetensors *file = NULL;
    struct apd_progress progress;
    enum apd_code rc;

    APD_GO(apd_safetensors_open(path, sha256, &file, err));
    APD_GO(meta_equal(file, path, "format", "advpropd-checkpoint", err));
    APD_GO(meta_equal(file, path, "format_version", "1", err));
    APD_GO(meta_equal(file, path, "config_digest", config_digest, err));
    APD_GO(meta_equal(file, path, "plan_digest", plan_digest, err));
    APD_GO(load_progress(file, path, &progress, err));
    APD_GO(load_items(file, path, params, WHOLE, 0, err));
    *out_progress = progress;
done:
    apd_safetensors_close(&file);
    return rc;
}

enum apd_code apd_checkpoint_load_model(const char *path, const char *sha256, int average,
                                        struct apd_params *params, struct apd_err *err)
{
    struct apd_safetensors *file = NULL;
    enum apd_code rc;

    APD_GO(apd_safetensors_open(path, sha256, &file, err));
    rc = load_items(file, path, params, average ? AVERAGE : WEIGHTS, 0, err);
done:
    apd_safetensors_close(&file);
    return rc;
}

/* Classes of the file's classifier if only their number keeps it from being ours, else 0. */
static uint64_t other_classes(const struct apd_safetensors *file, const struct apd_arch *arch)
{
    const struct apd_tensor *weight = apd_safetensors_find(file, "fc.weight");
    const struct apd_tensor *bias = apd_safetensors_find(file, "fc.bias");

    if (weight == NULL || weight->dims != 2 || weight->shape[1] != (uint64_t)arch->features.c ||
        bias == NULL || bias->dims != 1 || bias->shape[0] != weight->shape[0] ||
        weight->shape[0] == (uint64_t)arch->classes)
        return 0;
    return weight->shape[0];
}

enum apd_code apd_checkpoint_init_from(const char *path, struct apd_params *params,
                                       uint64_t *out_classes, struct apd_err *err)
{
    struct apd_safetensors *file = NULL;
    enum apd_code rc;

    APD_GO(apd_safetensors_open(path, NULL, &file, err));
    *out_classes = other_classes(file, params->arch);
    rc = load_items(file, path, params, WEIGHTS, *out_classes > 0, err);
done:
    apd_safetensors_close(&file);
    return rc;
}
