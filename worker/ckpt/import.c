/* advprop ckpt import: somebody's model as a file that init_from takes. Names of torchvision, timm
 * (the same for these networks) and the authors ("module." in front); values become F32. */
#include "worker/ckpt/ckpt.h"
#include "worker/ckpt/fit.h"
#include "worker/ckpt/model_file.h"
#include "worker/ckpt/source.h"
#include "worker/ckpt/values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum apd_code to_floats(const struct apd_tensor *tensor, const void *raw, float **out,
                               struct apd_err *err)
{
    uint64_t n = apd_tensor_elems(tensor), bad = 0;
    float *values = malloc(n * sizeof *values + 1);

    if (values == NULL)
        return apd_fail(err, APD_NOMEM, "%llu values of %s", (unsigned long long)n, tensor->name);
    for (uint64_t i = 0; i < n; i++) {
        values[i] = (float)apd_value_at(tensor->dtype, raw, i);
        bad += !isfinite(values[i]);
    }
    if (bad > 0) {
        free(values);
        return apd_fail(err, APD_DATA, "tensor %s: %llu of %llu values are not finite",
                        tensor->name, (unsigned long long)bad, (unsigned long long)n);
    }
    *out = values;
    return APD_OK;
}

static enum apd_code take_tensor(const struct apd_safetensors *file,
                                 const struct apd_tensor *tensor, const char *name,
                                 struct apd_model_file *model, struct apd_err *err)
{
    struct apd_tensor ours = *tensor;
    void *raw = NULL;
    float *values = NULL;
    enum apd_code rc;

    ours.name = name;
    ours.dtype = APD_DTYPE_F32;
    APD_GO(apd_values_read(file, tensor, &raw, err));
    APD_GO(to_floats(tensor, raw, &values, err));
    rc = apd_model_file_add(model, &ours, values, err);
done:
    free(raw);
    return rc;
}

/* In our order, whatever the source's. */
static enum apd_code take_tensors(const struct apd_safetensors *file,
                                  const struct apd_foreign *foreign, const struct apd_arch *arch,
                                  struct apd_model_file *model, struct apd_err *err)
{
    struct apd_tensor_info info;

    for (int i = 0; apd_arch_tensor(arch, foreign->has_aux, i, &info); i++)
        for (size_t k = 0; k < foreign->count; k++)
            if (strcmp(foreign->item[k].name, info.name) == 0)
                APD_TRY(
                    take_tensor(file, foreign->item[k].tensor, foreign->item[k].name, model, err));
    return APD_OK;
}

/* What people should know about the way. */
static void tell_changes(const struct apd_foreign *foreign)
{
    size_t others = 0;
    enum apd_dtype dtype = APD_DTYPE_F32;

    for (size_t i = 0; i < foreign->count; i++)
        if (foreign->item[i].tensor->dtype != APD_DTYPE_F32) {
            dtype = foreign->item[i].tensor->dtype;
            others++;
        }
    if (others > 0)
        printf("converted to F32: %zu tensors, of %s\n", others, apd_dtype_name(dtype));
    if (foreign->counters > 0)
        printf("left out: %zu counters num_batches_tracked\n", foreign->counters);
    if (!foreign->has_aux)
        puts("no auxiliary BN: init_from starts it as a copy of the main one");
}

static enum apd_code convert(const struct apd_safetensors *file, const struct apd_foreign *foreign,
                             const struct apd_ckpt_options *options, struct apd_arch *arch,
                             struct apd_model_file *model, struct apd_err *err)
{
    size_t misfits;

    APD_TRY(apd_foreign_arch(foreign, options->arch, arch, err));
    APD_TRY(apd_foreign_misfits(foreign, arch, 1, &misfits, err));
    if (misfits > 0)
        return apd_fail(err, APD_DATA, "%s: %zu tensors do not fit %s", options->path[0], misfits,
                        arch->name);
    APD_TRY(take_tensors(file, foreign, arch, model, err));
    printf("%s: width %d, stem %s, image channels %d, classes %d\n", arch->name,
           arch->layer[0].shape.out_c, arch->maxpool ? "imagenet" : "small", arch->image.c,
           arch->classes);
    tell_changes(foreign);
    apd_model_file_meta(model, "arch", arch->name);
    return apd_model_file_write(model, options->output, err);
}

enum apd_code apd_ckpt_import(const struct apd_ckpt_options *options, struct apd_err *err)
{
    struct apd_model_file model = {0};
    struct apd_safetensors *file = NULL;
    struct apd_foreign foreign = {0};
    struct apd_arch *arch = malloc(sizeof *arch);
    enum apd_code rc;

    if (arch == NULL) {
        rc = apd_fail(err, APD_NOMEM, "network");
        goto done;
    }
    APD_GO(apd_safetensors_open(options->path[0], NULL, &file, err));
    APD_GO(apd_foreign_list(file, &foreign, err));
    rc = convert(file, &foreign, options, arch, &model, err);
done:
    apd_model_file_fini(&model);
    apd_foreign_fini(&foreign);
    apd_safetensors_close(&file);
    free(arch);
    return rc;
}
