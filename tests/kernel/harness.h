/* Compares every operation of one backend with the reference on the same inputs. Inputs are made on
 * the host in canonical layouts and go to both; results come back in canonical layouts. A check
 * returns the number of elements that differ by more than its tolerance, and prints the first of
 * them. */
#ifndef APD_TESTS_KERNEL_HARNESS_H
#define APD_TESTS_KERNEL_HARNESS_H

#include "kernels/backend.h"
#include "kernels/shape.h"

/* cmocka.h wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { REF = 0, TESTED = 1, BOTH = 2 };

extern struct apd_backend *backend[BOTH];
/* Tolerance of backends that keep activations in 16 bits, where one of at least LEAST_APPROXIMATE
 * is asked for; activations always. 0: none. */
extern double coarse;
#define LEAST_APPROXIMATE 1e-5

/* Asserts that a backend's call succeeded. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        struct apd_err err = {0};                                                                  \
        if ((call) != APD_OK)                                                                      \
            fail_msg("%s: %s", #call, err.msg);                                                    \
    } while (0)

/* The same call on both backends; `b` is the index, `be` the backend, `ops` its table. */
#define ON_BOTH(call)                                                                              \
    for (int b = 0; b < BOTH; b++) {                                                               \
        struct apd_backend *be = backend[b];                                                       \
        const struct apd_backend_ops *ops = be->ops;                                               \
        OK(call);                                                                                  \
    }

/* A device array on each backend. Freed by release(). */
struct both {
    void *at[BOTH];
};

/* Seeds the random numbers from APD_TEST_SEED, or from the clock; prints the seed. */
void seed_from_environment(void);
uint32_t random_below(uint32_t n);
/* n floats, uniform in [-1, 1), from malloc; freed by release(). */
float *random_floats(size_t n);
float *floats(size_t n);

/* Frees everything made since the last call. */
void release(void);

struct both make_bytes(size_t bytes);
struct both make_activation(struct apd_shape shape, int n, const float *nchw);
struct both make_plain(size_t n, const float *values);
/* A per-channel vector: c values, then padding. */
struct both make_channels(int c, const float *values);
/* Empty (filled with garbage in the elements that must be written). */
struct both make_result(struct apd_shape shape, int n);
struct both make_plain_result(size_t n);
size_t channels(int b, int c);

/* Mismatches: |tested - ref| > tolerance * max(|ref|, rms of ref, size). All inputs here are of
 * size 1; a sum of n of them is of size sqrt(n), and so are its roundings where the sum itself
 * cancels. */
int compare(const char *what, const float *ref, const float *tested, size_t n, double size,
            double tolerance);
int compare_activation(const char *what, struct apd_shape shape, int n, struct both x,
                       double tolerance);
int compare_plain(const char *what, size_t n, struct both x, double tolerance);
int compare_channels(const char *what, int c, struct both x, double size, double tolerance);
/* [segments][2][C] doubles. */
int compare_sums(const char *what, int c, int segments, struct both x, double size,
                 double tolerance);
/* [segments][2][C] elements. */
int compare_moments(const char *what, int c, int segments, struct both x, double tolerance);

/* Makes the reference's tensor equal to the tested backend's. */
void copy_to_ref(struct apd_shape shape, int n, struct both x);

/* Whether the tested backend's tensor survives export and import bit by bit: padding is zero. */
int check_padding(const char *what, struct apd_shape shape, int n, struct both x);

/* Segment lists of n images: whole batch in one, split, with empty ones, both sets. */
struct segments {
    int count;
    struct apd_segment seg[4];
};
int segment_lists(int n, struct segments out[4]);

/* ---- the checks ---- */
int check_conv(const struct apd_conv_shape *shape, int n, double tolerance);
int check_bn(struct apd_shape shape, int n, const struct segments *s, int in_place);
/* The tested backend's fused batch norm, ReLU and pool against its operations one by one. */
int check_bn_pool(struct apd_shape shape, int n, const struct segments *s);
/* check_bn of a tested backend with a mistake: what it finds, and nothing without the mistake. */
int check_wrong_bn(void);
int check_maxpool(struct apd_shape shape, int n);
int check_avgpool(struct apd_shape shape, int n);
int check_linear(int n, int in, int out);
int check_softmax(int n, int classes, int mixed, double smoothing);
int check_images(int n, size_t pixels);
int check_mix(int n, struct apd_shape shape);
int check_flat(size_t n);

#endif
