/* Descriptors: errors with cuDNN's words, device properties, the graph of one convolution. */
#include "kernels/cuda/dnn_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum apd_code dnn_failed(struct apd_err *err, cudnnStatus_t status, const char *call)
{
    char words[256] = "";
    enum apd_code rc;

    cudnnGetLastErrorString(words, sizeof words);
    rc = apd_fail(
        err, status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ? APD_NOMEM : APD_DEVICE,
        "%s: %s%s%s", call, cudnnGetErrorString(status), words[0] != '\0' ? ": " : "", words);
    err->sys = (int)status;
    return rc;
}

enum apd_code dnn_new(struct dnn_bag *bag, cudnnBackendDescriptorType_t type,
                      cudnnBackendDescriptor_t *out, struct apd_err *err)
{
    enum apd_code rc = APD_OK;

    assert(bag->count < (int)(sizeof bag->at / sizeof *bag->at));
    *out = NULL;
    DNN_GO(cudnnBackendCreateDescriptor(type, &bag->at[bag->count]));
    *out = bag->at[bag->count++];
done:
    return rc;
}

void dnn_bag_cut(struct dnn_bag *bag, int keep)
{
    while (bag->count > keep)
        (void)cudnnBackendDestroyDescriptor(bag->at[--bag->count]);
}

enum apd_code dnn_device_create(struct dnn_bag *bag, const char *json, cudnnHandle_t handle,
                                cudnnBackendDescriptor_t *out, struct apd_err *err)
{
    cudnnBackendDescriptor_t device;
    enum apd_code rc;

    APD_GO(dnn_new(bag, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &device, err));
    if (json != NULL)
        DNN_GO(cudnnBackendSetAttribute(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                        CUDNN_TYPE_CHAR, (int64_t)strlen(json), json));
    else
        DNN_SET(device, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, &handle);
    DNN_GO(cudnnBackendFinalize(device));
    *out = device;
done:
    return rc;
}

enum apd_code dnn_device_json(cudnnBackendDescriptor_t device, char **out, struct apd_err *err)
{
    enum apd_code rc = APD_OK;
    int64_t size = 0;
    char *json = NULL;

    DNN_GO(cudnnBackendGetAttribute(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                    CUDNN_TYPE_CHAR, 0, &size, NULL));
    json = calloc(1, (size_t)size + 1);
    if (json == NULL) {
        rc = apd_fail(err, APD_NOMEM, "no memory for a device's properties");
        goto done;
    }
    DNN_GO(cudnnBackendGetAttribute(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                    CUDNN_TYPE_CHAR, size, &size, json));
    *out = json;
    json = NULL;
done:
    free(json);
    return rc;
}

static cudnnDataType_t data_type(enum apd_cuda_type type)
{
    switch (type) {
    case APD_CUDA_F16:
        return CUDNN_DATA_HALF;
    case APD_CUDA_BF16:
        return CUDNN_DATA_BFLOAT16;
    default:
        return CUDNN_DATA_FLOAT;
    }
}

/* dims are named n, c, h, w; in memory the channels are innermost. */
static enum apd_code new_tensor(struct dnn_bag *bag, cudnnDataType_t type, int64_t uid,
                                const int64_t dims[4], cudnnBackendDescriptor_t *out,
                                struct apd_err *err)
{
    const int64_t strides[4] = {dims[1] * dims[2] * dims[3], 1, dims[3] * dims[1], dims[1]};
    const int64_t alignment = 16;
    cudnnBackendDescriptor_t tensor;
    enum apd_code rc;

    APD_GO(dnn_new(bag, CUDNN_BACKEND_TENSOR_DESCRIPTOR, &tensor, err));
    DNN_SET(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, &type);
    DNN_GO(
        cudnnBackendSetAttribute(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims));
    DNN_GO(
        cudnnBackendSetAttribute(tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides));
    DNN_SET(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, &uid);
    DNN_SET(tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, &alignment);
    DNN_GO(cudnnBackendFinalize(tensor));
    *out = tensor;
done:
    return rc;
}

static enum apd_code new_convolution(struct dnn_bag *bag, const struct apd_dnn_problem *problem,
                                     cudnnBackendDescriptor_t *out, struct apd_err *err)
{
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t spatial = 2, pad[2] = {problem->pad, problem->pad}, dilation[2] = {1, 1};
    const int64_t stride[2] = {problem->stride, problem->stride};
    cudnnBackendDescriptor_t conv;
    enum apd_code rc;

    APD_GO(dnn_new(bag, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, &conv, err));
    DNN_SET(conv, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, &type);
    DNN_SET(conv, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, &mode);
    DNN_SET(conv, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, &spatial);
    DNN_GO(cudnnBackendSetAttribute(conv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2,
                                    pad));
    DNN_GO(cudnnBackendSetAttribute(conv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2,
                                    pad));
    DNN_GO(cudnnBackendSetAttribute(conv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64,
                                    2, stride));
    DNN_GO(cudnnBackendSetAttribute(conv, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2,
                                    dilation));
    DNN_GO(cudnnBackendFinalize(conv));
    *out = conv;
done:
    return rc;
}

/* What the three operations call their parts. */
static const struct {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t conv, x, w, y, alpha, beta;
} ops[APD_DNN_OPS] = {
    [APD_DNN_FORWARD] =
        {
            CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
        },
    [APD_DNN_BACKWARD_DATA] =
        {
            CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
        },
    [APD_DNN_BACKWARD_FILTER] =
        {
            CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
        },
};

static int64_t out_px(int in, const struct apd_dnn_problem *p)
{
    int room = in + 2 * p->pad - p->kernel;

    return room < 0 ? 0 : room / p->stride + 1;
}

static enum apd_code new_operation(struct dnn_bag *bag, const struct apd_dnn_problem *p,
                                   cudnnBackendDescriptor_t *out, struct apd_err *err)
{
    const cudnnDataType_t type = data_type(p->type);
    const int64_t x_dims[4] = {p->n, p->c, p->h, p->w};
    const int64_t w_dims[4] = {p->k, p->c / p->groups, p->kernel, p->kernel};
    const int64_t y_dims[4] = {p->n, p->k, out_px(p->h, p), out_px(p->w, p)};
    const float one = 1, zero = 0;
    cudnnBackendDescriptor_t x, w, y, conv, op;
    enum apd_code rc;

    APD_GO(new_tensor(bag, type, DNN_UID_X, x_dims, &x, err));
    APD_GO(new_tensor(bag, type, DNN_UID_W, w_dims, &w, err));
    APD_GO(new_tensor(bag, type, DNN_UID_Y, y_dims, &y, err));
    APD_GO(new_convolution(bag, p, &conv, err));
    APD_GO(dnn_new(bag, ops[p->op].type, &op, err));
    DNN_SET_DESCRIPTOR(op, ops[p->op].conv, conv);
    DNN_SET_DESCRIPTOR(op, ops[p->op].x, x);
    DNN_SET_DESCRIPTOR(op, ops[p->op].w, w);
    DNN_SET_DESCRIPTOR(op, ops[p->op].y, y);
    DNN_SET(op, ops[p->op].alpha, CUDNN_TYPE_FLOAT, &one);
    DNN_SET(op, ops[p->op].beta, CUDNN_TYPE_FLOAT, &zero);
    DNN_GO(cudnnBackendFinalize(op));
    *out = op;
done:
    return rc;
}

enum apd_code dnn_graph_create(struct dnn_bag *bag, const struct apd_dnn_problem *problem,
                               cudnnBackendDescriptor_t *out, struct apd_err *err)
{
    cudnnBackendDescriptor_t op, graph;
    enum apd_code rc;

    APD_GO(new_operation(bag, problem, &op, err));
    APD_GO(dnn_new(bag, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, &graph, err));
    DNN_SET_DESCRIPTOR(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, op);
    DNN_GO(cudnnBackendFinalize(graph));
    *out = graph;
done:
    return rc;
}
