/* The calls. A descriptor holds what it was made of, so that its owner may destroy the parts. */
#include "tests/emu/standin_cudnn.h"

#include "tests/emu/standin.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char standin_device[] = "{\"deviceVer\": 900, \"deviceName\": \"stand-in\"}";

static _Thread_local char last_error[256];

cudnnStatus_t refuse(cudnnStatus_t status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return status;
}

size_t cudnnGetVersion(void)
{
    const char *version = getenv("STANDIN_CUDNN_VERSION");

    return version != NULL ? strtoull(version, NULL, 10) : CUDNN_VERSION;
}

size_t cudnnGetCudartVersion(void)
{
    return CUDART_VERSION;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    switch (CUDNN_STATUS_CATEGORY(status)) {
    case CUDNN_STATUS_SUCCESS:
        return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_BAD_PARAM:
        return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_NOT_SUPPORTED:
        return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_INTERNAL_ERROR:
        return "CUDNN_STATUS_INTERNAL_ERROR";
    default:
        return "CUDNN_STATUS_EXECUTION_FAILED";
    }
}

void cudnnGetLastErrorString(char *message, size_t max_size)
{
    if (max_size > 0)
        (void)snprintf(message, max_size, "%s", last_error);
    last_error[0] = '\0';
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    *handle = calloc(1, sizeof **handle);
    return *handle != NULL ? CUDNN_STATUS_SUCCESS
                           : CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    if (handle == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "handle is NULL");
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- values ---- */

size_t value_bytes(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_CHAR:
        return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    case CUDNN_TYPE_DATA_TYPE:
    case CUDNN_TYPE_CONVOLUTION_MODE:
    case CUDNN_TYPE_HEUR_MODE:
    case CUDNN_TYPE_KNOB_TYPE:
    case CUDNN_TYPE_FLOAT:
        return 4;
    default:
        return 0;
    }
}

const struct attribute *attribute_of(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    for (int i = 0; i < d->count; i++)
        if (d->at[i].name == name)
            return &d->at[i];
    return NULL;
}

const int64_t *ints_of(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    return attribute_of(d, name)->value;
}

int64_t int_of(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    return *ints_of(d, name);
}

int enum_of(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    return *(const int *)attribute_of(d, name)->value;
}

struct descriptor *part_of(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    return *(struct descriptor **)attribute_of(d, name)->value;
}

static void release(struct descriptor *d);

static void attribute_fini(struct attribute *at)
{
    if (at->type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (int64_t i = 0; i < at->count; i++)
            release(((struct descriptor **)at->value)[i]);
    free(at->value);
}

static void release(struct descriptor *d)
{
    if (--d->references > 0)
        return;
    for (int i = 0; i < d->count; i++)
        attribute_fini(&d->at[i]);
    free(d);
}

cudnnStatus_t put_attribute(struct descriptor *d, cudnnBackendAttributeName_t name,
                            cudnnBackendAttributeType_t type, int64_t count, const void *value)
{
    size_t bytes = (size_t)count * value_bytes(type);
    struct attribute *at = (struct attribute *)(uintptr_t)attribute_of(d, name);
    void *copy = malloc(bytes);

    if (copy == NULL)
        return CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    memcpy(copy, value, bytes);
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (int64_t i = 0; i < count; i++)
            ((struct descriptor **)copy)[i]->references++;
    if (at != NULL)
        attribute_fini(at);
    else
        at = &d->at[d->count++];
    *at = (struct attribute){name, type, count, copy};
    return CUDNN_STATUS_SUCCESS;
}

/* ---- descriptors ---- */

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *descriptor)
{
    struct descriptor *d = calloc(1, sizeof *d);

    if (d == NULL)
        return CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    d->type = type;
    d->handles = d->references = 1;
    *descriptor = d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_handle(const struct descriptor *d)
{
    if (d == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "descriptor is NULL");
    if (d->handles == 0)
        return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d was destroyed", (int)d->type);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor)
{
    struct descriptor *d = descriptor;

    TRY(check_handle(d));
    d->handles = 0;
    release(d);
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_finalized(struct descriptor *d)
{
    TRY(check_handle(d));
    if (!d->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "descriptor %d is not finalized",
                      (int)d->type);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *values)
{
    struct descriptor *d = descriptor;

    TRY(check_handle(d));
    if (d->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d is finalized", (int)d->type);
    TRY(check_attribute(d, name, type, count));
    if (values == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "attribute %d has no values", (int)name);
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (int64_t i = 0; i < count; i++)
            TRY(check_finalized(((struct descriptor *const *)values)[i]));
    return put_attribute(d, name, type, count, values);
}

static int64_t elements(const int64_t dim[4])
{
    return dim[0] * dim[1] * dim[2] * dim[3];
}

static void operand_bytes(const struct convolution *conv, int64_t out[3])
{
    int64_t size = conv->type == CUDNN_DATA_FLOAT ? 4 : 2;

    out[0] = size * elements(conv->x);
    out[1] = size * elements(conv->w);
    out[2] = size * elements(conv->y);
}

/* Which of x, w, y the operation writes. */
static int result_of(const struct convolution *conv)
{
    switch (conv->op) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        return 2;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        return 0;
    default:
        return 1;
    }
}

static const char *name_of(const struct convolution *conv)
{
    static const char *const names[3] = {"backward data", "backward filter", "forward"};

    return names[result_of(conv)];
}

static void convolution_of(const struct descriptor *plan, struct convolution *out)
{
    const struct descriptor *engine = part_of(
        part_of(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG), CUDNN_ATTR_ENGINECFG_ENGINE);

    convolution_read(
        part_of(part_of(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH), CUDNN_ATTR_OPERATIONGRAPH_OPS),
        out);
    out->engine = (int)int_of(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
}

/* Of all operands: in the trace it tells convolutions apart, and plans stand there as they do. */
static size_t all_bytes(const struct convolution *conv)
{
    int64_t bytes[3];

    operand_bytes(conv, bytes);
    return (size_t)(bytes[0] + bytes[1] + bytes[2]);
}

static void note_plan(const struct descriptor *plan)
{
    struct convolution conv;

    convolution_of(plan, &conv);
    standin_note("plan", name_of(&conv), all_bytes(&conv));
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
    struct descriptor *d = descriptor;

    TRY(check_handle(d));
    if (d->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d is finalized", (int)d->type);
    TRY(check_descriptor(d));
    d->finalized = 1;
    if (d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        note_plan(d);
    return CUDNN_STATUS_SUCCESS;
}

/* ---- what can be asked ---- */

/* Makes `to`, fresh from its owner, the same as `from`. */
static cudnnStatus_t become(struct descriptor *to, const struct descriptor *from)
{
    TRY(check_handle(to));
    if (to->type != from->type || to->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d: expected a fresh descriptor %d",
                      (int)to->type, (int)from->type);
    for (int i = 0; i < from->count; i++)
        TRY(put_attribute(to, from->at[i].name, from->at[i].type, from->at[i].count,
                          from->at[i].value));
    to->finalized = 1;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t get_parts(const struct attribute *at, int64_t requested, int64_t *count,
                               void *values)
{
    *count = at != NULL ? at->count : 0;
    for (int64_t i = 0; i < *count && i < requested; i++)
        TRY(become(((struct descriptor **)values)[i], ((struct descriptor **)at->value)[i]));
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t get_device(const struct descriptor *d, int64_t requested, int64_t *count,
                                char *values)
{
    const struct attribute *at = attribute_of(d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION);
    const char *json = at != NULL ? at->value : standin_device;

    *count = at != NULL ? at->count : (int64_t)sizeof standin_device - 1;
    if (requested > 0)
        memcpy(values, json, (size_t)(requested < *count ? requested : *count));
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested,
                                       int64_t *count, void *values)
{
    struct descriptor *d = descriptor;
    const struct attribute *at;
    int64_t n;

    TRY(check_finalized(d));
    if (count == NULL)
        count = &n;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && d->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR &&
        type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        return engine_results(d, requested, count, values);
    if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE && d->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR &&
        type == CUDNN_TYPE_NUMERICAL_NOTE)
        return engine_notes(d, requested, count, values);
    if (name == CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE && d->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR &&
        type == CUDNN_TYPE_BEHAVIOR_NOTE)
        return engine_behavior(d, requested, count, values);
    if (name == CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION &&
        d->type == CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR && type == CUDNN_TYPE_CHAR)
        return get_device(d, requested, count, values);
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64 &&
        d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && requested == 1) {
        *count = 1;
        *(int64_t *)values = WORKSPACE_BYTES;
        return CUDNN_STATUS_SUCCESS;
    }
    at = attribute_of(d, name);
    if (at == NULL && name == CUDNN_ATTR_ENGINECFG_KNOB_CHOICES &&
        d->type == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
        return get_parts(NULL, requested, count, values);
    if (at == NULL || at->type != type)
        return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d cannot tell attribute %d as type %d",
                      (int)d->type, (int)name, (int)type);
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        return get_parts(at, requested, count, values);
    *count = at->count;
    memcpy(values, at->value,
           (size_t)(requested < at->count ? requested : at->count) * value_bytes(type));
    return CUDNN_STATUS_SUCCESS;
}

/* ---- execution ---- */

static int overlap(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes)
{
    return (const char *)a < (const char *)b + b_bytes &&
           (const char *)b < (const char *)a + a_bytes;
}

static cudnnStatus_t find_operands(const struct descriptor *pack, struct job *job)
{
    const struct attribute *uids = attribute_of(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    void *const *data = attribute_of(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)->value;

    for (int i = 0; i < 3; i++) {
        for (int64_t k = 0; k < uids->count; k++)
            if (((int64_t *)uids->value)[k] == job->conv.uid[i])
                job->data[i] = data[k];
        if (job->data[i] == NULL)
            return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no pointer is named %lld",
                          (long long)job->conv.uid[i]);
        if ((uintptr_t)job->data[i] % (uintptr_t)job->conv.alignment[i] != 0)
            return refuse(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER,
                          "%p is not aligned to %lld bytes", job->data[i],
                          (long long)job->conv.alignment[i]);
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_memory(const struct descriptor *pack, struct job *job)
{
    const struct attribute *workspace = attribute_of(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    int result = result_of(&job->conv);
    int64_t bytes[3];

    operand_bytes(&job->conv, bytes);
    job->workspace = workspace != NULL ? *(void **)workspace->value : NULL;
    if (job->workspace == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no workspace");
    if (!standin_is_device_memory(job->workspace, WORKSPACE_BYTES))
        return refuse(CUDNN_STATUS_BAD_PARAM, "%p is not a workspace on the device",
                      job->workspace);
    for (int i = 0; i < 3; i++) {
        if (!standin_is_device_memory(job->data[i], (size_t)bytes[i]))
            return refuse(CUDNN_STATUS_BAD_PARAM, "%p is not %lld bytes on the device",
                          job->data[i], (long long)bytes[i]);
        if (overlap(job->data[i], bytes[i], job->workspace, WORKSPACE_BYTES) ||
            (i != result && overlap(job->data[i], bytes[i], job->data[result], bytes[result])))
            return refuse(CUDNN_STATUS_BAD_PARAM, "operand %lld overlaps the result or workspace",
                          (long long)job->conv.uid[i]);
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t fill_job(const struct descriptor *plan, const struct descriptor *pack,
                              struct job *job)
{
    convolution_of(plan, &job->conv);
    TRY(find_operands(pack, job));
    return check_memory(pack, job);
}

static int attempt(void *job)
{
    job_run(job);
    return 1;
}

static cudnnStatus_t enqueue(cudaStream_t stream, struct job *job)
{
    struct standin_work work = {.kind = "dnn",
                                .name = name_of(&job->conv),
                                .bytes = all_bytes(&job->conv),
                                .attempt = attempt,
                                .destroy = free,
                                .arg = job};
    cudaError_t error;

    error = standin_enqueue(stream, &work);
    if (error != cudaSuccess)
        return refuse(CUDNN_STATUS_EXECUTION_FAILED_CUDART, "%s", cudaGetErrorString(error));
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack)
{
    struct job *job;
    cudnnStatus_t status;

    if (handle == NULL)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "handle is NULL");
    TRY(check_finalized(plan));
    TRY(check_finalized(pack));
    if (((struct descriptor *)plan)->type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR ||
        ((struct descriptor *)pack)->type != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)
        return refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "execute: a plan and a variant pack");
    TRY(engine_is_fit(plan));
    job = calloc(1, sizeof *job);
    if (job == NULL)
        return CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    status = fill_job(plan, pack, job);
    if (status != CUDNN_STATUS_SUCCESS) {
        free(job);
        return status;
    }
    return enqueue(handle->stream, job);
}
