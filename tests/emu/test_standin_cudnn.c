/* What the stand-in of cuDNN refuses, and what our convolutions never ask of it: alpha and beta. */
#include "tests/emu/standin_cudnn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#define OK(call)  assert_int_equal((call), CUDNN_STATUS_SUCCESS)
#define RUN(call) assert_int_equal((call), cudaSuccess)

static void assert_refused(cudnnStatus_t status, cudnnStatus_t expected, const char *words)
{
    char message[256];

    assert_int_equal(status, expected);
    cudnnGetLastErrorString(message, sizeof message);
    if (strstr(message, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", message, words);
    cudnnGetLastErrorString(message, sizeof message);
    assert_string_equal(message, "");
}

static cudnnBackendDescriptor_t fresh(cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;

    OK(cudnnBackendCreateDescriptor(type, &d));
    return d;
}

static void set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    OK(cudnnBackendSetAttribute(d, name, type, count, values));
}

static void set_part(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                     cudnnBackendDescriptor_t part)
{
    set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &part);
}

/* A tensor 1 x c x 1 x 1 of floats, not finalized. */
static cudnnBackendDescriptor_t raw_tensor(int64_t uid, int64_t n, int64_t c)
{
    const int64_t dims[4] = {n, c, 1, 1}, strides[4] = {c, 1, c, c}, alignment = 16;
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t d = fresh(CUDNN_BACKEND_TENSOR_DESCRIPTOR);

    set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    return d;
}

static cudnnBackendDescriptor_t tensor(int64_t uid, int64_t n, int64_t c)
{
    cudnnBackendDescriptor_t d = raw_tensor(uid, n, c);

    OK(cudnnBackendFinalize(d));
    return d;
}

static cudnnBackendDescriptor_t convolution(void)
{
    const int64_t two = 2, zeros[2] = {0, 0}, ones[2] = {1, 1};
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    cudnnBackendDescriptor_t d = fresh(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);

    set(d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &two);
    set(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, zeros);
    set(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, zeros);
    set(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, ones);
    set(d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
    OK(cudnnBackendFinalize(d));
    return d;
}

/* y [2 x 3] = alpha * x [2 x 4] w [3 x 4] + beta * y, not finalized; its parts are destroyed. */
static cudnnBackendDescriptor_t raw_forward(int64_t w_uid, int64_t y_channels, float alpha,
                                            float beta)
{
    cudnnBackendDescriptor_t part[4] = {convolution(), tensor(1, 2, 4), tensor(w_uid, 3, 4),
                                        tensor(3, 2, y_channels)};
    cudnnBackendDescriptor_t d = fresh(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);

    set_part(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, part[0]);
    set_part(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, part[1]);
    set_part(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, part[2]);
    set_part(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, part[3]);
    set(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &alpha);
    set(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &beta);
    for (int i = 0; i < 4; i++)
        OK(cudnnBackendDestroyDescriptor(part[i]));
    return d;
}

/* A descriptor of one part, finalized; the part is destroyed. */
static cudnnBackendDescriptor_t around(cudnnBackendDescriptorType_t type,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendDescriptor_t part)
{
    cudnnBackendDescriptor_t d = fresh(type);

    set_part(d, name, part);
    if (type == CUDNN_BACKEND_ENGINE_DESCRIPTOR) {
        const int64_t index = ENGINE_PLAIN;

        set(d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &index);
    }
    OK(cudnnBackendFinalize(d));
    OK(cudnnBackendDestroyDescriptor(part));
    return d;
}

static cudnnBackendDescriptor_t plan(float alpha, float beta)
{
    cudnnBackendDescriptor_t d = raw_forward(2, 3, alpha, beta);

    OK(cudnnBackendFinalize(d));
    d = around(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS, d);
    d = around(CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, d);
    d = around(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, CUDNN_ATTR_ENGINECFG_ENGINE, d);
    return around(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                  d);
}

/* ---- descriptors ---- */

static void attributes_of_the_wrong_kind_are_refused(void **state)
{
    cudnnBackendDescriptor_t d = fresh(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t values[4] = {1, 2, 3, 4};

    (void)state;
    assert_refused(
        cudnnBackendSetAttribute(d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, values),
        CUDNN_STATUS_BAD_PARAM, "has no attribute 102");
    assert_refused(
        cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_FLOAT, 4, values),
        CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "type");
    assert_refused(
        cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 3, values),
        CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT, "not 3");
    assert_refused(
        cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, NULL),
        CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no values");
    assert_refused(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM, "lacks attribute");
    OK(cudnnBackendDestroyDescriptor(d));
}

static void nothing_is_set_once_finalized_nor_used_before(void **state)
{
    cudnnBackendDescriptor_t done = tensor(1, 2, 4), raw = raw_tensor(2, 3, 4);
    cudnnBackendDescriptor_t op = fresh(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    const int64_t uid = 7;
    int64_t got, count;

    (void)state;
    assert_refused(
        cudnnBackendSetAttribute(done, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid),
        CUDNN_STATUS_BAD_PARAM, "is finalized");
    assert_refused(cudnnBackendFinalize(done), CUDNN_STATUS_BAD_PARAM, "is finalized");
    assert_refused(cudnnBackendGetAttribute(raw, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1,
                                            &count, &got),
                   CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "not finalized");
    assert_refused(cudnnBackendSetAttribute(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                                            CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw),
                   CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "not finalized");
    OK(cudnnBackendGetAttribute(done, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &count,
                                &got));
    assert_int_equal(got, 1);
    OK(cudnnBackendDestroyDescriptor(done));
    OK(cudnnBackendDestroyDescriptor(raw));
    OK(cudnnBackendDestroyDescriptor(op));
}

static void tensors_and_operations_must_fit(void **state)
{
    const int64_t nchw[4] = {4, 1, 1, 2}, odd = 12;
    cudnnBackendDescriptor_t d = raw_tensor(1, 2, 4);

    (void)state;
    set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, nchw);
    assert_refused(cudnnBackendFinalize(d), CUDNN_STATUS_NOT_SUPPORTED_LAYOUT, "NHWC");
    OK(cudnnBackendDestroyDescriptor(d));
    d = raw_tensor(1, 2, 4);
    set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &odd);
    assert_refused(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM, "12 bytes");
    OK(cudnnBackendDestroyDescriptor(d));
    d = raw_forward(3, 3, 1, 0);
    assert_refused(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "1, 3, 3");
    OK(cudnnBackendDestroyDescriptor(d));
    d = raw_forward(2, 5, 1, 0);
    assert_refused(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "5 channels");
    OK(cudnnBackendDestroyDescriptor(d));
}

static void a_part_of_the_wrong_kind_is_refused(void **state)
{
    cudnnBackendDescriptor_t x = tensor(1, 2, 4);
    cudnnBackendDescriptor_t d = raw_forward(2, 3, 1, 0);

    (void)state;
    set_part(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, x);
    assert_refused(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
                   "is a descriptor");
    OK(cudnnBackendDestroyDescriptor(d));
    OK(cudnnBackendDestroyDescriptor(x));
}

/* ---- runs ---- */

struct memory {
    float *x, *w, *y, *workspace; /* device: 8, 12, 6 floats */
    cudnnHandle_t handle;
};

static void memory_init(struct memory *m)
{
    static const float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const float w[12] = {1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 1};
    static const float y[6] = {10, 20, 30, 40, 50, 60};

    OK(cudnnCreate(&m->handle));
    RUN(cudaMalloc((void **)&m->x, 64));
    RUN(cudaMalloc((void **)&m->w, sizeof w));
    RUN(cudaMalloc((void **)&m->y, sizeof y));
    RUN(cudaMalloc((void **)&m->workspace, WORKSPACE_BYTES));
    RUN(cudaMemcpy(m->x, x, sizeof x, cudaMemcpyHostToDevice));
    RUN(cudaMemcpy(m->w, w, sizeof w, cudaMemcpyHostToDevice));
    RUN(cudaMemcpy(m->y, y, sizeof y, cudaMemcpyHostToDevice));
}

static void memory_fini(struct memory *m)
{
    OK(cudnnDestroy(m->handle));
    RUN(cudaFree(m->x));
    RUN(cudaFree(m->w));
    RUN(cudaFree(m->y));
    RUN(cudaFree(m->workspace));
}

static cudnnBackendDescriptor_t pack(int64_t w_uid, const void *x, const void *w, const void *y,
                                     const void *workspace)
{
    const int64_t uids[3] = {1, w_uid, 3};
    const void *const data[3] = {x, w, y};
    cudnnBackendDescriptor_t d = fresh(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);

    set(d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, uids);
    set(d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, data);
    set(d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    OK(cudnnBackendFinalize(d));
    return d;
}

static void alpha_and_beta_are_honoured(void **state)
{
    static const float expected[6] = {10 + 2 * 1, 20 + 2 * 2, 30 + 2 * 10,
                                      40 + 2 * 5, 50 + 2 * 6, 60 + 2 * 26};
    cudnnBackendDescriptor_t p = plan(2, 1), data;
    struct memory m;
    float y[6];

    (void)state;
    memory_init(&m);
    data = pack(2, m.x, m.w, m.y, m.workspace);
    OK(cudnnBackendExecute(m.handle, p, data));
    OK(cudnnBackendDestroyDescriptor(data)); /* before the stream comes to it */
    OK(cudnnBackendDestroyDescriptor(p));
    RUN(cudaMemcpy(y, m.y, sizeof y, cudaMemcpyDeviceToHost));
    assert_memory_equal(y, expected, sizeof y);
    memory_fini(&m);
}

static void memory_that_is_not_right_is_refused(void **state)
{
    cudnnBackendDescriptor_t p = plan(1, 0);
    float host[8] = {0};
    struct memory m;

    (void)state;
    memory_init(&m);
    const struct {
        int64_t w_uid;
        const void *x, *w, *y, *workspace;
        cudnnStatus_t status;
        const char *words;
    } wrong[] = {
        {9, m.x, m.w, m.y, m.workspace, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "named 2"},
        {2, m.x, NULL, m.y, m.workspace, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "named 2"},
        {2, m.x + 1, m.w, m.y, m.workspace, CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "aligned"},
        {2, m.x, m.w, m.y, NULL, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no workspace"},
        {2, m.x, m.w, m.y, host, CUDNN_STATUS_BAD_PARAM, "workspace on the device"},
        {2, m.x, m.x, m.y, m.workspace, CUDNN_STATUS_SUCCESS, ""}, /* both are only read */
        {2, m.x, m.w, m.x + 4, m.workspace, CUDNN_STATUS_BAD_PARAM, "overlaps"},
        {2, m.workspace, m.w, m.y, m.workspace, CUDNN_STATUS_BAD_PARAM, "overlaps"},
        {2, m.x, m.y, m.w, m.workspace, CUDNN_STATUS_BAD_PARAM, "48 bytes on the device"},
        {2, m.x, m.w, (const char *)0 + 4096, m.workspace, CUDNN_STATUS_BAD_PARAM, "24 bytes"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cudnnBackendDescriptor_t data =
            pack(wrong[i].w_uid, wrong[i].x, wrong[i].w, wrong[i].y, wrong[i].workspace);

        assert_refused(cudnnBackendExecute(m.handle, p, data), wrong[i].status, wrong[i].words);
        OK(cudnnBackendDestroyDescriptor(data));
    }
    RUN(cudaDeviceSynchronize());
    OK(cudnnBackendDestroyDescriptor(p));
    memory_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attributes_of_the_wrong_kind_are_refused),
        cmocka_unit_test(nothing_is_set_once_finalized_nor_used_before),
        cmocka_unit_test(tensors_and_operations_must_fit),
        cmocka_unit_test(a_part_of_the_wrong_kind_is_refused),
        cmocka_unit_test(alpha_and_beta_are_honoured),
        cmocka_unit_test(memory_that_is_not_right_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
