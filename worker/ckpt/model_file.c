#include "worker/ckpt/model_file.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void apd_model_file_fini(struct apd_model_file *model)
{
    for (size_t i = 0; i < model->count; i++)
        free((void *)model->tensor[i].data);
    free(model->tensor);
    *model = (struct apd_model_file){0};
}

enum apd_code apd_model_file_add(struct apd_model_file *model, const struct apd_tensor *tensor,
                                 void *data, struct apd_err *err)
{
    struct apd_tensor *grown = realloc(model->tensor, (model->count + 1) * sizeof *grown);

    if (grown == NULL) {
        free(data);
        return apd_fail(err, APD_NOMEM, "list of %zu tensors", model->count + 1);
    }
    model->tensor = grown;
    grown[model->count] = *tensor;
    grown[model->count++].data = data;
    return APD_OK;
}

void apd_model_file_meta(struct apd_model_file *model, const char *key, const char *value)
{
    if (value != NULL)
        model->meta[model->meta_count++] = (struct apd_meta){key, value};
}

/* As in a checkpoint: over the values, in the order of the file. */
static enum apd_code hash(const struct apd_model_file *model, char out[APD_SHA256_HEX],
                          struct apd_err *err)
{
    struct apd_sha256 *sum = NULL;
    enum apd_code rc;

    APD_GO(apd_sha256_create(&sum, err));
    for (size_t i = 0; i < model->count; i++)
        APD_GO(apd_sha256_update(sum, model->tensor[i].data, apd_tensor_bytes(&model->tensor[i]),
                                 err));
    rc = apd_sha256_hex(sum, out, err);
done:
    apd_sha256_destroy(&sum);
    return rc;
}

enum apd_code apd_model_file_write(struct apd_model_file *model, const char *path,
                                   struct apd_err *err)
{
    char weights_sha256[APD_SHA256_HEX], sha256[APD_SHA256_HEX], date[32];
    uint64_t bytes;

    APD_TRY(hash(model, weights_sha256, err));
    apd_date_format(apd_date_s(), date, sizeof date);
    apd_model_file_meta(model, "format", "advpropd-model");
    apd_model_file_meta(model, "format_version", "1");
    apd_model_file_meta(model, "written_by", "advpropd " APD_VERSION);
    apd_model_file_meta(model, "date", date);
    apd_model_file_meta(model, "weights_sha256", weights_sha256);
    APD_TRY(apd_safetensors_write(path, model->tensor, model->count, model->meta, model->meta_count,
                                  &bytes, sha256, err));
    printf("%s: %zu tensors, %" PRIu64 " bytes, sha256 %s\n", path, model->count, bytes, sha256);
    return APD_OK;
}
