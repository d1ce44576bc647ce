/* advprop ckpt diff: which tensors and settings of two checkpoints differ, and by how much. */
#include "worker/ckpt/ckpt.h"
#include "worker/ckpt/settings.h"
#include "worker/ckpt/source.h"
#include "worker/ckpt/values.h"
#include "worker/show.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct distance {
    uint64_t values; /* that differ */
    double most;     /* largest difference; infinite where one is not finite */
    double relative; /* norm of the difference over the norm of A */
};

static void measure(const struct apd_tensor *tensor, const void *a, const void *b,
                    struct distance *out)
{
    double difference_sum = 0, sum = 0;

    *out = (struct distance){0};
    for (uint64_t i = 0; i < apd_tensor_elems(tensor); i++) {
        double x = apd_value_at(tensor->dtype, a, i), y = apd_value_at(tensor->dtype, b, i);
        double difference = isfinite(x) && isfinite(y) ? fabs(x - y) : INFINITY;

        if (isfinite(x))
            sum += x * x;
        if (x == y || (isnan(x) && isnan(y)))
            continue;
        out->values++;
        out->most = fmax(out->most, difference);
        difference_sum += difference * difference;
    }
    if (out->values > 0)
        out->relative = sqrt(difference_sum / sum); /* infinite where A is 0 */
}

static enum apd_code measure_tensor(const struct apd_safetensors *a,
                                    const struct apd_safetensors *b, const struct apd_tensor *of_a,
                                    const struct apd_tensor *of_b, struct distance *out,
                                    struct apd_err *err)
{
    void *raw_a = NULL, *raw_b = NULL;
    enum apd_code rc;

    APD_GO(apd_values_read(a, of_a, &raw_a, err));
    APD_GO(apd_values_read(b, of_b, &raw_b, err));
    measure(of_a, raw_a, raw_b, out);
done:
    free(raw_a);
    free(raw_b);
    return rc;
}

static json_t *kind_json(const struct apd_tensor *tensor)
{
    char shape[APD_SHAPE_TEXT];

    apd_shape_text(tensor->dims, tensor->shape, shape);
    return json_sprintf("%s %s", apd_dtype_name(tensor->dtype), shape);
}

static enum apd_code append(json_t *list, json_t *value, struct apd_err *err)
{
    return json_array_append_new(list, value) == 0 ? APD_OK : apd_fail(err, APD_NOMEM, "result");
}

static int same_kind(const struct apd_tensor *a, const struct apd_tensor *b)
{
    return a->dtype == b->dtype && a->dims == b->dims &&
           memcmp(a->shape, b->shape, (size_t)a->dims * sizeof *a->shape) == 0;
}

/* Adds what is to be said of a tensor of A; nothing if B has the same. */
static enum apd_code compare_tensor(const struct apd_safetensors *a,
                                    const struct apd_safetensors *b, const struct apd_tensor *of_a,
                                    double tolerance, json_t *out, struct apd_err *err)
{
    const struct apd_tensor *of_b = apd_safetensors_find(b, of_a->name);
    struct distance found;

    if (of_b == NULL)
        return append(out, json_pack("{s:s, s:s}", "name", of_a->name, "only_in", "a"), err);
    if (!same_kind(of_a, of_b))
        return append(out,
                      json_pack("{s:s, s:o, s:o}", "name", of_a->name, "a", kind_json(of_a), "b",
                                kind_json(of_b)),
                      err);
    APD_TRY(measure_tensor(a, b, of_a, of_b, &found, err));
    if (found.most <= tolerance)
        return APD_OK;
    return append(out,
                  json_pack("{s:s, s:I, s:I, s:o, s:o}", "name", of_a->name, "values",
                            (json_int_t)apd_tensor_elems(of_a), "different",
                            (json_int_t)found.values, "largest", apd_show_real(found.most),
                            "relative", apd_show_real(found.relative)),
                  err);
}

static enum apd_code compare_tensors(const struct apd_safetensors *a,
                                     const struct apd_safetensors *b, double tolerance, json_t *out,
                                     struct apd_err *err)
{
    for (size_t i = 0; i < apd_safetensors_count(a); i++)
        APD_TRY(compare_tensor(a, b, apd_safetensors_at(a, i), tolerance, out, err));
    for (size_t i = 0; i < apd_safetensors_count(b); i++) {
        const char *name = apd_safetensors_at(b, i)->name;

        if (apd_safetensors_find(a, name) == NULL)
            APD_TRY(append(out, json_pack("{s:s, s:s}", "name", name, "only_in", "b"), err));
    }
    return APD_OK;
}

/* ---------------------------------------------------------------- for people */

static void print_number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (json_is_number(value))
        printf("%.3g", json_number_value(value));
    else
        fputs("infinite", stdout);
}

static void print_tensor(const json_t *one)
{
    fputs("  ", stdout);
    apd_show_text(apd_show_get(one, "name"), 46, stdout);
    if (json_object_get(one, "only_in") != NULL) {
        printf(" only in %s\n", strcmp(apd_show_get(one, "only_in"), "a") == 0 ? "A" : "B");
    } else if (json_object_get(one, "a") != NULL) {
        printf(" A %s, B %s\n", apd_show_get(one, "a"), apd_show_get(one, "b"));
    } else {
        printf(" %lld of %lld values, largest difference ", apd_show_count(one, "different"),
               apd_show_count(one, "values"));
        print_number(one, "largest");
        fputs(", relative ", stdout);
        print_number(one, "relative");
        putchar('\n');
    }
}

static void print_pairs(const char *title, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        const json_t *a = json_object_get(one, "a"), *b = json_object_get(one, "b");

        if (i == 0)
            printf("%s\n", title);
        fputs("  ", stdout);
        apd_show_text(apd_show_get(one, "key"), 24, stdout);
        fputs(" A ", stdout);
        apd_show_text(a == NULL ? "has none" : json_string_value(a), 0, stdout);
        fputs(", B ", stdout);
        apd_show_text(b == NULL ? "has none" : json_string_value(b), 0, stdout);
        putchar('\n');
    }
}

static void print_result(const json_t *result)
{
    const json_t *tensors = json_object_get(result, "tensors");

    printf("A  %s\nB  %s\n", apd_show_get(result, "a"), apd_show_get(result, "b"));
    if (json_array_size(tensors) > 0)
        puts("tensors");
    for (size_t i = 0; i < json_array_size(tensors); i++)
        print_tensor(json_array_get(tensors, i));
    print_pairs("settings", json_object_get(result, "settings"));
    print_pairs("metadata (does not count)", json_object_get(result, "metadata"));
    if (json_is_true(json_object_get(result, "equal")))
        puts("tensors and settings are equal");
}

/* ---------------------------------------------------------------- */

struct side {
    char path[APD_RUN_PATH_MAX];
    struct apd_safetensors *file;
};

static enum apd_code compare(const struct side *a, const struct side *b,
                             const struct apd_ckpt_options *options, int *out_equal,
                             struct apd_err *err)
{
    json_t *tensors = json_array(), *settings = apd_settings_diff(a->file, b->file), *result = NULL;
    enum apd_code rc;

    APD_GO(compare_tensors(a->file, b->file, options->tolerance, tensors, err));
    *out_equal = json_array_size(tensors) == 0 && json_array_size(settings) == 0;
    result = json_pack("{s:o, s:o, s:b, s:O, s:O, s:o}", "a", apd_show_string(a->path), "b",
                       apd_show_string(b->path), "equal", *out_equal, "tensors", tensors,
                       "settings", settings, "metadata", apd_metadata_diff(a->file, b->file));
    if (result == NULL || options->json)
        rc = apd_show_json(result, err);
    else
        print_result(result);
done:
    json_decref(tensors);
    json_decref(settings);
    json_decref(result);
    return rc;
}

enum apd_code apd_ckpt_diff(const struct apd_ckpt_options *options, int *out_equal,
                            struct apd_err *err)
{
    struct side a = {.file = NULL}, b = {.file = NULL};
    enum apd_code rc;

    APD_GO(apd_ckpt_source_open(options->path[0], a.path, &a.file, err));
    APD_GO(apd_ckpt_source_open(options->path[1], b.path, &b.file, err));
    rc = compare(&a, &b, options, out_equal, err);
done:
    apd_safetensors_close(&a.file);
    apd_safetensors_close(&b.file);
    return rc;
}
