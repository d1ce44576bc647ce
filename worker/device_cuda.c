#include "base/log.h"
#include "kernels/cuda/cuda.h"
#include "worker/comm_nccl.h"
#include "worker/device.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum apd_code apd_device_has_cuda(struct apd_err *err)
{
    int count;

    return apd_cuda_devices(&count, err);
}

enum apd_code apd_device_open_cuda(const struct apd_config *config,
                                   const struct apd_device_place *place, struct apd_backend **out,
                                   char text[128], struct apd_err *err)
{
    const char *precision = config->cuda.precision;
    char engines[2 * APD_TEXT];
    struct apd_cuda_options options = {.local_rank = place->local_rank,
                                       .type = APD_CUDA_F32,
                                       .tf32 = strcmp(precision, "tf32") == 0,
                                       .nondeterministic = !config->cuda.deterministic,
                                       .graphs = (int)config->cuda.graphs,
                                       .timeout_s = config->cluster.silent_timeout_s};

    if (strcmp(precision, "fp16") == 0)
        options.type = APD_CUDA_F16;
    if (strcmp(precision, "bf16") == 0)
        options.type = APD_CUDA_BF16;
    if (place->run_dir != NULL) {
        (void)snprintf(engines, sizeof engines, "%s/engines.json", place->run_dir);
        options.engines = engines;
    }
    APD_TRY(apd_backend_cuda(&options, out, err));
    if (apd_cuda_engines_note(*out)[0] != '\0')
        apd_log(APD_LOG_WARN, "engines are chosen anew", "why=\"%s\"", apd_cuda_engines_note(*out));
    (void)snprintf(text, 128, "cuda %s, %.100s", precision, apd_cuda_device_name(*out));
    return APD_OK;
}

enum apd_code apd_device_comm_cuda(const struct apd_config *config, struct apd_backend *be,
                                   struct apd_comm *host, struct apd_comm **out,
                                   struct apd_err *err)
{
    APD_TRY(apd_comm_nccl(be, host, (int)config->cuda.deterministic,
                          config->cluster.silent_timeout_s, out, err));
    (*out)->bucket_bytes = (size_t)(config->cuda.bucket_mb * 1e6) & ~(size_t)15;
    return APD_OK;
}

enum apd_code apd_device_look(struct apd_device_report *out, struct apd_err *err)
{
    (void)err;
    apd_cuda_look(&out->cuda);
    apd_nccl_versions(&out->nccl_built, &out->nccl_found);
    return APD_OK;
}

enum apd_code apd_device_settled_cuda(struct apd_backend *be, struct apd_err *err)
{
    struct apd_dnn_summary convolutions;
    const char *replaced;
    int64_t beside;

    APD_TRY(apd_cuda_beside_plan(be, &beside, err));
    if (beside >= 0)
        apd_log(APD_LOG_INFO, "GPU memory beside the plan", "mb=%" PRId64, beside >> 20);
    apd_cuda_convolutions(be, &convolutions, &replaced);
    apd_log(APD_LOG_INFO, "convolutions planned",
            "plans=%d tensor_core=%d fallback=%d compiled_late=%d", convolutions.plans,
            convolutions.tensor_core, convolutions.fallback, convolutions.compiled_late);
    if (replaced[0] != '\0')
        apd_log(APD_LOG_WARN, "engines were replaced", "why=\"%s\"", replaced);
    return apd_cuda_save_engines(be, err);
}
