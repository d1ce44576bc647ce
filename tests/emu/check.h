/* What the kernel tests share. Device memory is host memory here: blocks of exactly the asked size,
 * so that the sanitizers see every step beside them. References are double, from the values as
 * stored; an element may be wrong by the rounding of its type and a little of float arithmetic.
 *
 * Every check runs once per order of blocks and threads; what it records has to be the same bits
 * each time. */
#ifndef APD_TESTS_EMU_CHECK_H
#define APD_TESTS_EMU_CHECK_H

#include "kernels/cuda/kernels.h"
#include "kernels/shape.h"

/* cmocka.h wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define OK(call) assert_int_equal((call), cudaSuccess)

/* ---- memory: zeroed, aligned to 16, freed by release() ---- */
void *memory(size_t bytes);
float *floats(size_t n);
float *random_floats(size_t n); /* in [-1, 1) */
double *doubles(size_t n);
void release(void);

uint32_t random_word(void);
double random_unit(void); /* in [-1, 1) */

/* ---- elements of a type ---- */
size_t elem_bytes(enum apd_cuda_type type);
double get(enum apd_cuda_type type, const void *p, size_t i);
void put(enum apd_cuda_type type, void *p, size_t i, double v);

/* ---- activations [n][h * w][C] ---- */
int rounded_up(int c);
size_t place(struct apd_shape s, int image, int pixel, int c);
size_t activation_elems(struct apd_shape s, int n);
/* Zero padding, values mean + deviation * [-1, 1). */
void *random_activation(enum apd_cuda_type type, struct apd_shape s, int n, double mean,
                        double deviation);
/* Filled with NaN, padding too. */
void *garbage_activation(enum apd_cuda_type type, struct apd_shape s, int n);
void expect_zero_padding(enum apd_cuda_type type, struct apd_shape s, int n, const void *p);

/* ---- comparisons ---- */
/* scale: size of the terms that v was made of. */
void expect_elem(const char *what, enum apd_cuda_type type, double got, double want, double scale);
void expect_near(const char *what, double got, double want, double tolerance);
/* What the result of every order has to agree in. */
void record(const void *p, size_t bytes);

/* Runs check(argument) in every order. */
void in_every_order(void (*check)(const void *argument), const void *argument);
/* Whether the test runs under TSan, where only the smallest grids are affordable. */
int few(void);

void test_bn(void **state);
void test_bn_variance(void **state);
void test_bn_constant(void **state);
void test_bn_moments_left(void **state);
void test_bn_many_segments(void **state);
void test_bn_parts(void **state);
void test_bn_two(void **state);
void test_bn_scratch(void **state);
void test_bn_pool(void **state);
void test_maxpool(void **state);
void test_avgpool(void **state);
void test_input_pack(void **state);
void test_attack_step(void **state);
void test_mix_images(void **state);
void test_rows_gather(void **state);
void test_image_activation(void **state);
void test_rows(void **state);
void test_softmax(void **state);
void test_column_sums(void **state);
void test_flat(void **state);
void test_nonfinite(void **state);

#endif
