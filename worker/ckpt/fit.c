#include "worker/ckpt/fit.h"

#include "proto/nearest.h"
#include "worker/ckpt/values.h"
#include "worker/show.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGE_PX = 224, TOLD = 20 };

/* ---------------------------------------------------------------- names */

enum apd_code apd_foreign_list(const struct apd_safetensors *file, struct apd_foreign *out,
                               struct apd_err *err)
{
    size_t count = apd_safetensors_count(file);

    *out = (struct apd_foreign){.item = calloc(count + 1, sizeof *out->item)};
    if (out->item == NULL)
        return apd_fail(err, APD_NOMEM, "list of %zu tensors", count);
    for (size_t i = 0; i < count; i++) {
        const struct apd_tensor *tensor = apd_safetensors_at(file, i);
        const char *name = tensor->name + (strncmp(tensor->name, "module.", 7) == 0 ? 7 : 0);

        if (strstr(name, ".num_batches_tracked") != NULL) {
            out->counters++;
            continue;
        }
        if (name != tensor->name && apd_safetensors_find(file, name) != NULL)
            return apd_fail(err, APD_DATA, "there are both %s and %s", name, tensor->name);
        out->item[out->count++] = (struct apd_foreign_tensor){name, tensor};
        out->has_aux |= strstr(name, ".aux_bn.") != NULL;
    }
    return APD_OK;
}

void apd_foreign_fini(struct apd_foreign *foreign)
{
    free(foreign->item);
    *foreign = (struct apd_foreign){0};
}

const struct apd_tensor *apd_foreign_find(const struct apd_foreign *foreign, const char *name)
{
    for (size_t i = 0; i < foreign->count; i++)
        if (strcmp(foreign->item[i].name, name) == 0)
            return foreign->item[i].tensor;
    return NULL;
}

/* ---------------------------------------------------------------- what does not fit */

struct misfits {
    int tell;
    size_t count;
};

__attribute__((format(printf, 2, 3))) static void tell(struct misfits *misfits, const char *format,
                                                       ...)
{
    char text[512];
    va_list args;

    misfits->count++;
    if (!misfits->tell || misfits->count > TOLD)
        return;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fputs("  ", stderr);
    apd_show_text(text, 0, stderr);
    fputc('\n', stderr);
}

static void check_expected(const struct apd_foreign *foreign, const struct apd_tensor_info *info,
                           struct misfits *misfits)
{
    const struct apd_tensor *found = apd_foreign_find(foreign, info->name);
    const uint64_t *shape = (const uint64_t *)info->shape;
    char expected_text[APD_SHAPE_TEXT], found_text[APD_SHAPE_TEXT];

    apd_shape_text(info->dims, shape, expected_text);
    if (found == NULL) {
        tell(misfits, "%s: expected %s, found none", info->name, expected_text);
        return;
    }
    apd_shape_text(found->dims, found->shape, found_text);
    if (strcmp(expected_text, found_text) != 0)
        tell(misfits, "%s: expected %s, found %s", info->name, expected_text, found_text);
    else if (!apd_values_are_real(found->dtype))
        tell(misfits, "%s: expected F32, F64, F16 or BF16, found %s", info->name,
             apd_dtype_name(found->dtype));
}

/* Names of the network's tensors; `infos` is fresh memory that they point into. */
static enum apd_code list_expected(const struct apd_arch *arch, int has_aux,
                                   struct apd_tensor_info **infos, const char ***names,
                                   size_t *out_count, struct apd_err *err)
{
    size_t count = 0;
    struct apd_tensor_info info;

    while (apd_arch_tensor(arch, has_aux, (int)count, &info))
        count++;
    *infos = calloc(count, sizeof **infos);
    *names = calloc(count, sizeof **names);
    if (*infos == NULL || *names == NULL)
        return apd_fail(err, APD_NOMEM, "list of %zu tensors", count);
    for (size_t i = 0; i < count; i++) {
        (void)apd_arch_tensor(arch, has_aux, (int)i, &(*infos)[i]);
        (*names)[i] = (*infos)[i].name;
    }
    *out_count = count;
    return APD_OK;
}

static void check_found(const char *name, const char *const *expected, size_t count,
                        struct misfits *misfits)
{
    const char *nearest;

    for (size_t i = 0; i < count; i++)
        if (strcmp(expected[i], name) == 0)
            return;
    nearest = misfits->tell ? apd_nearest(name, expected, count) : NULL;
    tell(misfits, "%s: unknown%s%s", name, nearest != NULL ? "; the nearest name is " : "",
         nearest != NULL ? nearest : "");
}

enum apd_code apd_foreign_misfits(const struct apd_foreign *foreign, const struct apd_arch *arch,
                                  int tell_them, size_t *out_count, struct apd_err *err)
{
    struct misfits misfits = {.tell = tell_them};
    struct apd_tensor_info *infos = NULL;
    const char **names = NULL;
    size_t count = 0;
    enum apd_code rc;

    APD_GO(list_expected(arch, foreign->has_aux, &infos, &names, &count, err));
    for (size_t i = 0; i < count; i++)
        check_expected(foreign, &infos[i], &misfits);
    for (size_t i = 0; i < foreign->count; i++)
        check_found(foreign->item[i].name, names, count, &misfits);
    if (tell_them && misfits.count > TOLD)
        fprintf(stderr, "  ... and %zu more\n", misfits.count - TOLD);
    *out_count = misfits.count;
done:
    free(infos);
    free(names);
    return rc;
}

/* ---------------------------------------------------------------- which network */

static enum apd_code find_ends(const struct apd_foreign *foreign, const struct apd_tensor **stem,
                               const struct apd_tensor **classifier, struct apd_err *err)
{
    *stem = apd_foreign_find(foreign, "conv1.weight");
    *classifier = apd_foreign_find(foreign, "fc.weight");
    if (*stem == NULL || (*stem)->dims != 4 || *classifier == NULL || (*classifier)->dims != 2)
        return apd_fail(
            err, APD_DATA,
            "no ResNet under torchvision's names: expected conv1.weight of 4 dimensions "
            "and fc.weight of 2");
    for (int d = 0; d < 4; d++)
        if ((*stem)->shape[d] > INT_MAX || (*classifier)->shape[d / 2] > INT_MAX)
            return apd_fail(err, APD_DATA, "conv1.weight or fc.weight: a size is over %d", INT_MAX);
    return APD_OK;
}

static enum apd_code build(const struct apd_foreign *foreign, const char *name,
                           struct apd_arch *out, struct apd_err *err)
{
    const struct apd_tensor *stem, *classifier;

    APD_TRY(find_ends(foreign, &stem, &classifier, err));
    return apd_arch_build(name, (int)stem->shape[0], stem->shape[2] == 3,
                          (struct apd_shape){(int)stem->shape[1], IMAGE_PX, IMAGE_PX},
                          (int)classifier->shape[0], out, err);
}

enum apd_code apd_foreign_arch(const struct apd_foreign *foreign, const char *name,
                               struct apd_arch *out, struct apd_err *err)
{
    const char *best = apd_arch_name(0), *candidate;
    size_t misfits, fewest = SIZE_MAX;

    for (int i = 0; name == NULL && (candidate = apd_arch_name(i)) != NULL; i++) {
        APD_TRY(build(foreign, candidate, out, err));
        APD_TRY(apd_foreign_misfits(foreign, out, 0, &misfits, err));
        if (misfits < fewest) {
            fewest = misfits;
            best = candidate;
        }
    }
    return build(foreign, name != NULL ? name : best, out, err);
}
