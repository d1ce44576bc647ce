/* The stand-in of libcudnn.so.9: a convolution planned and run as with the genuine library, by the
 * CPU. standin_cudnn.c: the calls and the descriptors; standin_cudnn_check.c: what a descriptor
 * must be made of; standin_cudnn_engines.c: what the heuristics offer; standin_cudnn_run.c: the
 * arithmetic. */
#ifndef APD_TESTS_EMU_STANDIN_CUDNN_H
#define APD_TESTS_EMU_STANDIN_CUDNN_H

#include <cudnn_graph.h>

#include <stdint.h>

struct cudnnContext {
    cudaStream_t stream;
};

/* ---- descriptors ---- */

struct attribute {
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t count;
    void *value;
};

struct descriptor {
    cudnnBackendDescriptorType_t type;
    int finalized;
    int handles; /* 0: destroyed by its owner, alive for those that were made of it */
    int references;
    int count;
    struct attribute at[12];
};

/* NULL if it is not set. */
const struct attribute *attribute_of(const struct descriptor *d, cudnnBackendAttributeName_t name);
/* The values below must be set: finalize has seen to that. */
int64_t int_of(const struct descriptor *d, cudnnBackendAttributeName_t name);
int enum_of(const struct descriptor *d, cudnnBackendAttributeName_t name);
const int64_t *ints_of(const struct descriptor *d, cudnnBackendAttributeName_t name);
struct descriptor *part_of(const struct descriptor *d, cudnnBackendAttributeName_t name);

/* Sets what cudnnGetLastErrorString() says and returns status. */
cudnnStatus_t refuse(cudnnStatus_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define TRY(call)                                                                                  \
    do {                                                                                           \
        cudnnStatus_t try_status_ = (call);                                                        \
        if (try_status_ != CUDNN_STATUS_SUCCESS)                                                   \
            return try_status_;                                                                    \
    } while (0)

/* Adds an attribute, or replaces its values. */
cudnnStatus_t put_attribute(struct descriptor *d, cudnnBackendAttributeName_t name,
                            cudnnBackendAttributeType_t type, int64_t count, const void *value);

/* Bytes of one value; 0 for a type the stand-in does not know. */
size_t value_bytes(cudnnBackendAttributeType_t type);

/* ---- checks ---- */

/* NULL, or destroyed by its owner? */
cudnnStatus_t check_handle(const struct descriptor *d);
/* May the attribute be set on this kind of descriptor, with this type and count? */
cudnnStatus_t check_attribute(const struct descriptor *d, cudnnBackendAttributeName_t name,
                              cudnnBackendAttributeType_t type, int64_t count);
/* Is all there that must be, and does it fit together? */
cudnnStatus_t check_descriptor(const struct descriptor *d);

/* ---- engines ---- */

enum {
    ENGINE_RANDOM,  /* NONDETERMINISTIC */
    ENGINE_ROUNDED, /* F32: rounds inputs to TF32; 16 bits: REDUCED_PRECISION_REDUCTION */
    ENGINE_PLAIN,
    ENGINE_COMPILED, /* RUNTIME_COMPILATION */
    ENGINE_SIMPLE,   /* 16 bits: without tensor cores */
    ENGINE_NARROW,   /* DOWN_CONVERT_INPUTS */
    ENGINES,
    PLAIN_TILES = 4, /* values of ENGINE_PLAIN's knob */
    PLAIN_TILE = 2,  /* the heuristics' */
    WORKSPACE_BYTES = 4096,
};

/* The answers to questions for attributes. */
cudnnStatus_t engine_results(const struct descriptor *heuristics, int64_t requested, int64_t *count,
                             void *values);
cudnnStatus_t engine_notes(const struct descriptor *engine, int64_t requested, int64_t *count,
                           cudnnBackendNumericalNote_t *values);
cudnnStatus_t engine_behavior(const struct descriptor *engine, int64_t requested, int64_t *count,
                              cudnnBackendBehaviorNote_t *values);
/* Engines in STANDIN_CUDNN_UNFIT="2,4" can be planned and do not run. */
cudnnStatus_t engine_is_fit(const struct descriptor *plan);

/* ---- runs ---- */

/* A convolution; groups = x[1] / w[1]. Tensors: n, c, h, w. */
struct convolution {
    cudnnBackendDescriptorType_t op;
    cudnnDataType_t type;
    int engine;
    int64_t x[4], w[4], y[4];
    int64_t uid[3], alignment[3]; /* x, w, y */
    int64_t pre_pad[2], post_pad[2], stride[2];
    float alpha, beta;
};

/* op: one of the three operations, finalized. */
void convolution_read(const struct descriptor *op, struct convolution *out);

struct job {
    struct convolution conv;
    void *data[3]; /* x, w, y */
    void *workspace;
};

/* Runs a struct job; leaves it as it was: a graph may come back to it. */
void job_run(const struct job *job);

#endif
