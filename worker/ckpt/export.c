/* advprop ckpt export: a checkpoint as a model for others. Plain: weights and main BN, what
 * torchvision loads strictly. Full: auxiliary BN, too, as the authors' model has it. */
#include "worker/ckpt/ckpt.h"
#include "worker/ckpt/model_file.h"
#include "worker/ckpt/source.h"
#include "worker/ckpt/values.h"

#include <stdio.h>
#include <string.h>

/* The tensor whose values go out under the name of `tensor`. */
static enum apd_code values_of(const struct apd_safetensors *file, const struct apd_tensor *tensor,
                               int ema, const struct apd_tensor **out, struct apd_err *err)
{
    char name[256];

    *out = tensor;
    if (!ema)
        return APD_OK;
    (void)snprintf(name, sizeof name, "ema.%s", tensor->name);
    *out = apd_safetensors_find(file, name);
    if (*out == NULL || apd_tensor_bytes(*out) != apd_tensor_bytes(tensor))
        return apd_fail(err, APD_DATA,
                        "--ema: the file has no tensor %s as large as %s: was it trained with "
                        "optim.ema_decay?",
                        name, tensor->name);
    return APD_OK;
}

static enum apd_code collect(const struct apd_safetensors *file,
                             const struct apd_ckpt_options *options, struct apd_model_file *model,
                             struct apd_err *err)
{
    for (size_t i = 0; i < apd_safetensors_count(file); i++) {
        const struct apd_tensor *tensor = apd_safetensors_at(file, i), *source;
        void *data;

        if (!apd_ckpt_source_is_model(tensor->name) ||
            (!options->full && strstr(tensor->name, ".aux_bn.") != NULL))
            continue;
        APD_TRY(values_of(file, tensor, options->ema, &source, err));
        APD_TRY(apd_values_read(file, source, &data, err));
        APD_TRY(apd_model_file_add(model, tensor, data, err));
    }
    return APD_OK;
}

enum apd_code apd_ckpt_export(const struct apd_ckpt_options *options, struct apd_err *err)
{
    static const char *const kept[] = {"arch", "step", "epoch", "seed", "config"};
    struct apd_model_file model = {0};
    struct apd_safetensors *file = NULL;
    char path[APD_RUN_PATH_MAX];
    enum apd_code rc;

    APD_GO(apd_ckpt_source_open(options->path[0], path, &file, err));
    if (apd_ckpt_source_same_file(path, options->output)) {
        rc = apd_fail(err, APD_USAGE, "%s would replace what is exported", options->output);
        goto done;
    }
    APD_GO(collect(file, options, &model, err));
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        apd_model_file_meta(&model, kept[i], apd_safetensors_meta(file, kept[i]));
    apd_model_file_meta(&model, "weights", options->ema ? "average" : NULL);
    rc = apd_model_file_write(&model, options->output, err);
done:
    apd_model_file_fini(&model);
    apd_safetensors_close(&file);
    return rc;
}
