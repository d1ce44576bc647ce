/* What the heuristics offer, and what engines say of themselves. */
#include "tests/emu/standin_cudnn.h"

#include <stdlib.h>
#include <string.h>

/* An engine with its knob, if it has one, as the heuristics offer it. */
static cudnnStatus_t offer(const struct descriptor *graph, int64_t index, struct descriptor *config)
{
    const cudnnBackendKnobType_t knob_type = CUDNN_KNOB_TYPE_TILE_SIZE;
    const int64_t tile = PLAIN_TILE;
    cudnnBackendDescriptor_t engine, knob;
    cudnnStatus_t status;

    TRY(check_handle(config));
    if (config->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR || config->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM, "results go to fresh engine configurations");
    TRY(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    TRY(cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob));
    status = put_attribute(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                           1, &graph);
    status |= put_attribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &index);
    status |= cudnnBackendFinalize(engine);
    status |=
        put_attribute(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &knob_type);
    status |= put_attribute(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &tile);
    status |= cudnnBackendFinalize(knob);
    status |= put_attribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                            &engine);
    if (index == ENGINE_PLAIN)
        status |= put_attribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &knob);
    status |= cudnnBackendFinalize(config);
    (void)cudnnBackendDestroyDescriptor(engine);
    (void)cudnnBackendDestroyDescriptor(knob);
    return status == CUDNN_STATUS_SUCCESS ? status : CUDNN_STATUS_INTERNAL_ERROR;
}

static int is_float(const struct descriptor *graph)
{
    struct convolution conv;

    convolution_read(part_of(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS), &conv);
    return conv.type == CUDNN_DATA_FLOAT;
}

/* Mode A offers first what a careful caller must refuse or would rather not have. */
cudnnStatus_t engine_results(const struct descriptor *d, int64_t requested, int64_t *count,
                             void *values)
{
    static const int64_t mode_a[2][ENGINES] = {{ENGINE_RANDOM, ENGINE_ROUNDED, ENGINE_NARROW,
                                                ENGINE_COMPILED, ENGINE_SIMPLE, ENGINE_PLAIN},
                                               {ENGINE_RANDOM, ENGINE_NARROW, ENGINE_COMPILED,
                                                ENGINE_PLAIN, ENGINE_SIMPLE, ENGINE_ROUNDED}};
    static const int64_t fallback[] = {ENGINE_PLAIN};
    const struct descriptor *graph = part_of(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    int is_fallback = enum_of(d, CUDNN_ATTR_ENGINEHEUR_MODE) == CUDNN_HEUR_MODE_FALLBACK;
    const int64_t *engine = is_fallback ? fallback : mode_a[is_float(graph)];

    *count = is_fallback ? 1 : ENGINES;
    for (int64_t i = 0; i < *count && i < requested; i++)
        TRY(offer(graph, engine[i], ((struct descriptor **)values)[i]));
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t engine_notes(const struct descriptor *engine, int64_t requested, int64_t *count,
                           cudnnBackendNumericalNote_t *values)
{
    int is_16_bits = !is_float(part_of(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH));
    int64_t index = int_of(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX), n = 0;
    cudnnBackendNumericalNote_t note[3];

    if (index == ENGINE_ROUNDED || index == ENGINE_NARROW ||
        (is_16_bits && (index == ENGINE_PLAIN || index == ENGINE_COMPILED)))
        note[n++] = CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    if (index == ENGINE_RANDOM)
        note[n++] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    if (index == ENGINE_NARROW)
        note[n++] = CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
    if (index == ENGINE_ROUNDED && is_16_bits)
        note[n++] = CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    *count = n;
    for (int64_t i = 0; i < n && i < requested; i++)
        values[i] = note[i];
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t engine_behavior(const struct descriptor *engine, int64_t requested, int64_t *count,
                              cudnnBackendBehaviorNote_t *values)
{
    *count = int_of(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX) == ENGINE_COMPILED;
    if (*count > 0 && requested > 0)
        values[0] = CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t engine_is_fit(const struct descriptor *plan)
{
    const struct descriptor *config = part_of(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    int64_t engine =
        int_of(part_of(config, CUDNN_ATTR_ENGINECFG_ENGINE), CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
    const char *unfit = getenv("STANDIN_CUDNN_UNFIT");

    if (unfit != NULL && strchr(unfit, (int)('0' + engine)) != NULL)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH, "engine %lld does not run",
                      (long long)engine);
    return CUDNN_STATUS_SUCCESS;
}
