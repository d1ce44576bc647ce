/* Life of the CPU backend: which instruction set, how many threads. oneDNN's instruction set is a
 * property of the process, fixed by its first primitive; so it is one per process here too. */
#include "kernels/cpu/cpu.h"

#include "base/isa.h"

#include <assert.h>
#include <dnnl_debug.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xmmintrin.h>

#define FLUSH_TO_ZERO       0x8000u
#define DENORMALS_ARE_ZEROS 0x0040u

/* Best first. */
static const struct isa {
    const char *name;
    enum apd_isa isa;
    const struct apd_simd *simd;
    dnnl_cpu_isa_t dnnl;
} isas[] = {
    {"avx512", APD_ISA_AVX512, &apd_simd_avx512, dnnl_cpu_isa_avx512_core},
    {"avx2", APD_ISA_AVX2, &apd_simd_avx2, dnnl_cpu_isa_avx2},
    {"baseline", APD_ISA_BASELINE, &apd_simd_baseline, dnnl_cpu_isa_sse41},
};

static enum apd_code find_isa(const char *name, const struct isa **out, struct apd_err *err)
{
    int automatic = strcmp(name, "auto") == 0;

    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (!automatic && strcmp(name, isas[i].name) != 0)
            continue;
        if (apd_isa_supported(isas[i].isa)) {
            *out = &isas[i];
            return APD_OK;
        }
        if (!automatic)
            return apd_fail(err, APD_CONFIG, "this machine lacks the instructions of isa %s", name);
    }
    return apd_fail(err, APD_CONFIG, "unknown isa %s: auto, avx512, avx2, baseline", name);
}

static enum apd_code fix_isa(const struct isa *isa, struct apd_err *err)
{
    if (dnnl_set_max_cpu_isa(isa->dnnl) == dnnl_success)
        return APD_OK;
    /* Too late to choose: fine if it is what we want. */
    if (dnnl_get_effective_cpu_isa() == isa->dnnl)
        return APD_OK;
    return apd_fail(err, APD_CONFIG, "isa %s: oneDNN already runs as %s in this process", isa->name,
                    dnnl_cpu_isa2str(dnnl_get_effective_cpu_isa()));
}

static enum apd_code find_algo(const char *name, enum cpu_algo *out, struct apd_err *err)
{
    static const char *const names[] = {
        [CPU_ALGO_AUTO] = "auto",
        [CPU_ALGO_DIRECT] = "direct",
        [CPU_ALGO_WINOGRAD] = "winograd",
    };

    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum cpu_algo)i;
            return APD_OK;
        }
    return apd_fail(err, APD_CONFIG, "unknown convolution algorithm %s: auto, direct, winograd",
                    name);
}

static void start_threads(int threads)
{
    omp_set_dynamic(0);
    omp_set_num_threads(threads);
#pragma omp parallel num_threads(threads)
    _mm_setcsr(_mm_getcsr() | FLUSH_TO_ZERO | DENORMALS_ARE_ZEROS);
}

enum apd_code cpu_vendor_failed(struct apd_err *err, dnnl_status_t status, const char *call)
{
    enum apd_code code = status == dnnl_out_of_memory ? APD_NOMEM : APD_DEVICE;

    apd_fail(err, code, "oneDNN: %s: %s", call, dnnl_status2str(status));
    err->sys = (int)status;
    return code;
}

enum apd_code cpu_reserve(struct cpu_backend *cpu, enum cpu_scratch_use use, size_t bytes,
                          struct apd_err *err)
{
    struct cpu_scratch *s = &cpu->scratch[use];

    if (bytes <= s->bytes)
        return APD_OK;
    free(s->data);
    *s = (struct cpu_scratch){0};
    APD_TRY(cpu->ops.alloc(&cpu->base, bytes, &s->data, err));
    s->bytes = bytes;
    return APD_OK;
}

static void cpu_destroy(struct apd_backend *be)
{
    struct cpu_backend *cpu = cpu_of(be);

    if (cpu == NULL)
        return;
    for (int i = 0; i < CPU_SCRATCHES; i++)
        free(cpu->scratch[i].data);
    if (cpu->stream != NULL)
        (void)dnnl_stream_destroy(cpu->stream);
    if (cpu->engine != NULL)
        (void)dnnl_engine_destroy(cpu->engine);
    free(cpu);
}

static void fill_table(struct apd_backend_ops *ops)
{
    ops->destroy = cpu_destroy;
    cpu_memory_ops(ops);
    cpu_conv_ops(ops);
    cpu_bn_ops(ops);
    cpu_pool_ops(ops);
    cpu_linear_ops(ops);
    cpu_loss_ops(ops);
    cpu_image_ops(ops);
    cpu_flat_ops(ops);
}

enum apd_code apd_backend_cpu(const struct apd_cpu_options *options, struct apd_backend **out,
                              struct apd_err *err)
{
    const dnnl_version_t *version = dnnl_version();
    const struct isa *isa = NULL;
    struct cpu_backend *cpu = NULL;
    enum cpu_algo algo = CPU_ALGO_AUTO;
    enum apd_code rc;

    assert(options->threads >= 1);
    APD_TRY(find_isa(options->isa, &isa, err));
    APD_TRY(find_algo(options->conv_algo, &algo, err));
    APD_TRY(fix_isa(isa, err));
    cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for a backend");
    fill_table(&cpu->ops);
    cpu->base.ops = &cpu->ops;
    cpu->base.name = "cpu";
    cpu->base.elem_bytes = cpu->base.act_bytes = sizeof(float);
    (void)snprintf(cpu->base.layout, sizeof cpu->base.layout, "nChw%dc oneDNN %d.%d.%d",
                   isa->simd->block, version->major, version->minor, version->patch);
    cpu->simd = isa->simd;
    cpu->threads = options->threads;
    cpu->algo = algo;
    cpu->weights_version = 1;
    start_threads(options->threads);
    DNNL_GO(dnnl_engine_create(&cpu->engine, dnnl_cpu, 0));
    DNNL_GO(dnnl_stream_create(&cpu->stream, cpu->engine, dnnl_stream_default_flags));
    *out = &cpu->base;
    return APD_OK;
done:
    cpu_destroy(&cpu->base);
    return rc;
}
