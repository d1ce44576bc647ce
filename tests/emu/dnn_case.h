/* A convolution to test kernels/cuda/dnn.h with: operands here, on the device and in double. What
 * fails, fails the test. */
#ifndef APD_TESTS_DNN_CASE_H
#define APD_TESTS_DNN_CASE_H

#include "kernels/cuda/dnn.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define OK(call)   assert_int_equal((call), cudaSuccess)
#define GOOD(call) dnn_good((call), &err)

struct dnn_operand {
    size_t count;
    void *host;
    double *value;
    void *device;
};

struct dnn_case {
    struct apd_dnn_problem problem;
    int oh, ow;
    struct dnn_operand x, w, y;
    double *sum, *size; /* of the result: by the reference, and the sum of absolute products */
    void *workspace;
};

/* Odd and even sizes, filters, strides, groups; forward in fp32 unless changed. */
enum { DNN_SHAPES = 14 };
extern const struct apd_dnn_problem dnn_shapes[DNN_SHAPES];

void dnn_good(enum apd_code code, const struct apd_err *err);

/* Element `i` of memory of that type. What is put is cut to bf16. */
double dnn_get(enum apd_cuda_type type, const void *p, size_t i);
void dnn_put(enum apd_cuda_type type, void *p, size_t i, double v);

/* Random operands; what the result lies in holds NaN. */
void dnn_case_init(struct dnn_case *b, const struct apd_dnn_problem *problem,
                   struct test_random *random);
void dnn_case_fini(struct dnn_case *b);
struct dnn_operand *dnn_result(struct dnn_case *b);

/* By definition, in double: `sum` and `size`. */
void dnn_reference(struct dnn_case *b);

/* By the library under test; the result is copied to the host. */
void dnn_run(struct apd_dnn *dnn, struct dnn_case *b, cudaStream_t stream);

/* The largest error, in units of what is allowed: the rounding of the result and of float sums, and
 * `inputs` of every product. */
double dnn_worst(struct dnn_case *b, double inputs);

/* `engines`: the file, or NULL. */
struct apd_dnn *dnn_case_library(const char *engines, int nondeterministic);
struct apd_dnn_plan_info dnn_plan_info(struct apd_dnn *dnn, const struct apd_dnn_problem *p);

#endif
