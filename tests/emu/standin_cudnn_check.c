/* What the stand-in accepts: the attributes of each kind of descriptor, and how they must fit. Less
 * than the genuine library takes, never more. */
#include "tests/emu/standin_cudnn.h"

#include <string.h>

struct rule {
    cudnnBackendDescriptorType_t of;
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t min, max; /* count of values */
    int required;
};

#define INT        CUDNN_TYPE_INT64
#define DESCRIPTOR CUDNN_TYPE_BACKEND_DESCRIPTOR
/* The three operations have the same parts. */
#define OPERATION(KIND, NAME, x, w, y)                                                             \
    {KIND, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_CONV_DESC, DESCRIPTOR, 1, 1, 1},              \
        {KIND, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##x, DESCRIPTOR, 1, 1, 1},                \
        {KIND, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##w, DESCRIPTOR, 1, 1, 1},                \
        {KIND, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##y, DESCRIPTOR, 1, 1, 1},                \
        {KIND, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_ALPHA, CUDNN_TYPE_FLOAT, 1, 1, 1},        \
    {                                                                                              \
        KIND, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_BETA, CUDNN_TYPE_FLOAT, 1, 1, 1            \
    }

/* clang-format off */
static const struct rule rules[] = {
    {CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 2, 1 << 20, 0},
    {CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, 0},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DIMENSIONS, INT, 4, 4, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_STRIDES, INT, 4, 4, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, INT, 1, 1, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, INT, 1, 1, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, 1, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, INT, 1, 1, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, INT, 2, 2, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, INT, 2, 2, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, INT, 2, 2, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_DILATIONS, INT, 2, 2, 1},
    OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, FORWARD, X, W, Y),
    OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, BWD_DATA, DX, W, DY),
    OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, BWD_FILTER, X, DW, DY),
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS, DESCRIPTOR, 1, 1, 1},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, DESCRIPTOR, 1, 1, 1},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1, 1},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, DESCRIPTOR, 1, 1, 0},
    {CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, DESCRIPTOR, 1, 1, 1},
    {CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, INT, 1, 1, 1},
    {CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_DEVICEPROP, DESCRIPTOR, 1, 1, 0},
    {CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, 1, 1},
    {CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, INT, 1, 1, 1},
    {CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, CUDNN_ATTR_ENGINECFG_ENGINE, DESCRIPTOR, 1, 1, 1},
    {CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, DESCRIPTOR, 1, 8, 0},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, DESCRIPTOR, 1, 1, 1},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, DESCRIPTOR, 1, 1, 0},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, INT, 1, 8, 1},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, 8, 1},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1, 0},
};

/* Descriptors that are made of descriptors. */
static const struct {
    cudnnBackendAttributeName_t name;
    cudnnBackendDescriptorType_t part;
} parts[] = {
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR},
    {CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR},
    {CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR},
    {CUDNN_ATTR_ENGINE_DEVICEPROP, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR},
    {CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR},
    {CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR},
    {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR},
    {CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR},
};
/* clang-format on */

#define RULES (sizeof rules / sizeof *rules)
#define PARTS (sizeof parts / sizeof *parts)

cudnnStatus_t check_attribute(const struct descriptor *d, cudnnBackendAttributeName_t name,
                              cudnnBackendAttributeType_t type, int64_t count)
{
    for (size_t i = 0; i < RULES; i++) {
        const struct rule *rule = &rules[i];

        if (rule->of != d->type || rule->name != name)
            continue;
        if (rule->type != type)
            return refuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE,
                          "attribute %d of descriptor %d has type %d, not %d", (int)name,
                          (int)d->type, (int)rule->type, (int)type);
        if (count < rule->min || count > rule->max)
            return refuse(CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT,
                          "attribute %d of descriptor %d has %lld to %lld values, not %lld",
                          (int)name, (int)d->type, (long long)rule->min, (long long)rule->max,
                          (long long)count);
        return CUDNN_STATUS_SUCCESS;
    }
    return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d has no attribute %d", (int)d->type,
                  (int)name);
}

static cudnnStatus_t check_parts(const struct descriptor *d)
{
    for (size_t i = 0; i < RULES; i++)
        if (rules[i].of == d->type && rules[i].required && attribute_of(d, rules[i].name) == NULL)
            return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d lacks attribute %d", (int)d->type,
                          (int)rules[i].name);
    for (size_t i = 0; i < PARTS; i++) {
        const struct attribute *at = attribute_of(d, parts[i].name);

        for (int64_t k = 0; at != NULL && k < at->count; k++)
            if (((struct descriptor **)at->value)[k]->type != parts[i].part)
                return refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
                              "attribute %d of descriptor %d is a descriptor %d, not %d",
                              (int)at->name, (int)d->type, (int)parts[i].part,
                              (int)((struct descriptor **)at->value)[k]->type);
    }
    return CUDNN_STATUS_SUCCESS;
}

/* ---- each kind ---- */

static cudnnStatus_t check_tensor(const struct descriptor *d)
{
    const int64_t *dim = ints_of(d, CUDNN_ATTR_TENSOR_DIMENSIONS);
    const int64_t *stride = ints_of(d, CUDNN_ATTR_TENSOR_STRIDES);
    int64_t alignment = int_of(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
    int type = enum_of(d, CUDNN_ATTR_TENSOR_DATA_TYPE);

    if (type != CUDNN_DATA_FLOAT && type != CUDNN_DATA_HALF && type != CUDNN_DATA_BFLOAT16)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "a tensor of type %d", type);
    for (int i = 0; i < 4; i++)
        if (dim[i] < 1)
            return refuse(CUDNN_STATUS_BAD_PARAM, "dimension %d of a tensor is %lld", i,
                          (long long)dim[i]);
    if (stride[1] != 1 || stride[3] != dim[1] || stride[2] != dim[1] * dim[3] ||
        stride[0] != dim[1] * dim[2] * dim[3])
        return refuse(CUDNN_STATUS_NOT_SUPPORTED_LAYOUT, "a tensor that is not packed NHWC");
    if (alignment < 1 || (alignment & (alignment - 1)) != 0)
        return refuse(CUDNN_STATUS_BAD_PARAM, "a tensor aligned to %lld bytes",
                      (long long)alignment);
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_convolution(const struct descriptor *d)
{
    const int64_t *pre = ints_of(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    const int64_t *post = ints_of(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    const int64_t *stride = ints_of(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    const int64_t *dilation = ints_of(d, CUDNN_ATTR_CONVOLUTION_DILATIONS);

    if (int_of(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) != 2 ||
        enum_of(d, CUDNN_ATTR_CONVOLUTION_CONV_MODE) != CUDNN_CROSS_CORRELATION ||
        enum_of(d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED,
                      "a convolution that is not a 2-d cross-correlation in float");
    for (int i = 0; i < 2; i++)
        if (pre[i] < 0 || post[i] < 0 || stride[i] < 1 || dilation[i] != 1)
            return refuse(CUDNN_STATUS_BAD_PARAM,
                          "padding %lld and %lld, stride %lld, dilation %lld", (long long)pre[i],
                          (long long)post[i], (long long)stride[i], (long long)dilation[i]);
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_operands(const struct descriptor *x, const struct descriptor *w,
                                    const struct descriptor *y)
{
    int64_t uid[3] = {int_of(x, CUDNN_ATTR_TENSOR_UNIQUE_ID),
                      int_of(w, CUDNN_ATTR_TENSOR_UNIQUE_ID),
                      int_of(y, CUDNN_ATTR_TENSOR_UNIQUE_ID)};
    int type = enum_of(x, CUDNN_ATTR_TENSOR_DATA_TYPE);

    if (enum_of(w, CUDNN_ATTR_TENSOR_DATA_TYPE) != type ||
        enum_of(y, CUDNN_ATTR_TENSOR_DATA_TYPE) != type)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "operands of different types");
    if (uid[0] == uid[1] || uid[0] == uid[2] || uid[1] == uid[2])
        return refuse(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "operands %lld, %lld, %lld",
                      (long long)uid[0], (long long)uid[1], (long long)uid[2]);
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_operation(const struct descriptor *d)
{
    struct convolution c;
    struct descriptor *x, *w, *y;
    cudnnStatus_t status;
    int forward = d->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
    int data = d->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR;

    x = part_of(d, forward ? CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X
                   : data  ? CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX
                           : CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X);
    w = part_of(d, forward ? CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W
                   : data  ? CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W
                           : CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW);
    y = part_of(d, forward ? CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y
                   : data  ? CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY
                           : CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY);
    status = check_operands(x, w, y);
    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    convolution_read(d, &c);
    if (c.x[1] % c.w[1] != 0 || c.w[0] % (c.x[1] / c.w[1]) != 0)
        return refuse(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH,
                      "%lld channels to %lld by filters of %lld", (long long)c.x[1],
                      (long long)c.w[0], (long long)c.w[1]);
    if (c.y[0] != c.x[0] || c.y[1] != c.w[0])
        return refuse(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "an output of %lld x %lld channels",
                      (long long)c.y[0], (long long)c.y[1]);
    for (int i = 0; i < 2; i++) {
        int64_t room = c.x[2 + i] + c.pre_pad[i] + c.post_pad[i] - c.w[2 + i];

        if (room < 0 || c.y[2 + i] != room / c.stride[i] + 1)
            return refuse(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH,
                          "%lld pixels to %lld by a kernel of %lld", (long long)c.x[2 + i],
                          (long long)c.y[2 + i], (long long)c.w[2 + i]);
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_graph(const struct descriptor *d)
{
    cudnnBackendDescriptorType_t op = part_of(d, CUDNN_ATTR_OPERATIONGRAPH_OPS)->type;

    if (op != CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR &&
        op != CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR &&
        op != CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN, "a graph of descriptor %d",
                      (int)op);
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_config(const struct descriptor *d)
{
    const struct attribute *knobs = attribute_of(d, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES);
    int64_t engine =
        int_of(part_of(d, CUDNN_ATTR_ENGINECFG_ENGINE), CUDNN_ATTR_ENGINE_GLOBAL_INDEX);

    for (int64_t i = 0; knobs != NULL && i < knobs->count; i++) {
        const struct descriptor *knob = ((struct descriptor **)knobs->value)[i];
        int type = enum_of(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE);
        int64_t value = int_of(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE);

        if (engine != ENGINE_PLAIN || type != CUDNN_KNOB_TYPE_TILE_SIZE || value < 0 ||
            value >= PLAIN_TILES)
            return refuse(CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND,
                          "knob %d of engine %lld cannot be %lld", type, (long long)engine,
                          (long long)value);
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_pack(const struct descriptor *d)
{
    const struct attribute *uids = attribute_of(d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const struct attribute *data = attribute_of(d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    const int64_t *uid = uids->value;

    if (uids->count != data->count)
        return refuse(CUDNN_STATUS_BAD_PARAM, "%lld names of %lld pointers", (long long)uids->count,
                      (long long)data->count);
    for (int64_t i = 0; i < uids->count; i++)
        for (int64_t k = 0; k < i; k++)
            if (uid[i] == uid[k])
                return refuse(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "two pointers named %lld",
                              (long long)uid[i]);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_descriptor(const struct descriptor *d)
{
    cudnnStatus_t status = check_parts(d);

    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    switch (d->type) {
    case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR:
        if (d->count != 1)
            return refuse(CUDNN_STATUS_BAD_PARAM, "a device by %d ways", d->count);
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        return check_tensor(d);
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
        return check_convolution(d);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        return check_operation(d);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return check_graph(d);
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR:
        if (int_of(d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX) < 0 ||
            int_of(d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX) >= ENGINES)
            return refuse(CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND, "engine %lld of %d",
                          (long long)int_of(d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX), ENGINES);
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
        return check_config(d);
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
        return check_pack(d);
    default:
        return CUDNN_STATUS_SUCCESS;
    }
}
