/* Every backward operation of the double reference against central differences of its forward one:
 * for L = sum_i r_i y_i(x) with random r, dL/dx_k = (L(x + h e_k) - L(x - h e_k)) / 2h. */
#include "base/rng.h"
#include "kernels/backend.h"
#include "kernels/shape.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define H         1e-5
#define TOLERANCE 1e-7
#define MOST      4096 /* elements of the largest tensor here */

static struct apd_backend *be;
static uint64_t seed;
static uint32_t drawn;

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct apd_err err = {0};                                                                  \
        if ((call) != APD_OK)                                                                      \
            fail_msg("%s: %s", #call, err.msg);                                                    \
    } while (0)

/* ref64's device memory is host memory of doubles. */
static double random_value(void)
{
    return 2 * (double)apd_uniform(apd_rng(seed, APD_RNG_INIT, 0, 0, drawn++).v[0]) - 1;
}

static void randomise(double *x, size_t n)
{
    assert_true(n <= MOST);
    for (size_t i = 0; i < n; i++)
        x[i] = random_value();
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Checks `gradient` of loss() with respect to x[0..n). */
static void check_gradient(const char *what, double (*loss)(void *), void *arg, double *x,
                           const double *gradient, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        double kept = x[k], up, down, expected;

        x[k] = kept + H;
        up = loss(arg);
        x[k] = kept - H;
        down = loss(arg);
        x[k] = kept;
        expected = (up - down) / (2 * H);
        if (!(fabs(gradient[k] - expected) <= TOLERANCE * fmax(1, fabs(expected))))
            fail_msg("%s: element %zu: differences give %.12g, backward gives %.12g", what, k,
                     expected, gradient[k]);
    }
}

/* ---- convolution ---- */

struct conv_case {
    struct apd_conv *conv;
    int n;
    size_t in, out, weights;
    double src[MOST], w[MOST], dst[MOST], r[MOST];
};

static double conv_loss(void *arg)
{
    struct conv_case *c = arg;

    OK(be->ops->conv_forward(be, c->conv, c->n, c->src, c->w, c->dst, &err));
    return dot(c->dst, c->r, c->out);
}

static void check_conv_case(const struct apd_conv_shape *shape, int n)
{
    struct conv_case *c = calloc(1, sizeof *c);
    double *d_src = calloc(MOST, sizeof *d_src), *d_w = calloc(MOST, sizeof *d_w);

    assert_true(c != NULL && d_src != NULL && d_w != NULL);
    OK(be->ops->conv_create(be, shape, &c->conv, &err));
    c->n = n;
    c->in = (size_t)n * apd_shape_elems(shape->in);
    c->out = (size_t)n * apd_shape_elems(apd_conv_out(shape));
    c->weights = apd_conv_oihw_elems(shape);
    randomise(c->src, c->in);
    randomise(c->w, c->weights);
    randomise(c->r, c->out);
    OK(be->ops->conv_backward_data(be, c->conv, n, c->r, c->w, d_src, &err));
    OK(be->ops->conv_backward_weights(be, c->conv, n, c->src, c->r, d_w, &err));
    check_gradient("conv d_src", conv_loss, c, c->src, d_src, c->in);
    check_gradient("conv d_w", conv_loss, c, c->w, d_w, c->weights);
    be->ops->conv_destroy(be, &c->conv);
    free(d_src);
    free(d_w);
    free(c);
}

static void convolution_gradients(void **state)
{
    static const struct apd_conv_shape shapes[] = {
        {{2, 5, 4}, 3, 3, 1, 1, 1, 0}, {{3, 5, 5}, 2, 3, 2, 1, 1, 0}, {{2, 4, 5}, 3, 1, 2, 0, 1, 0},
        {{1, 7, 7}, 2, 7, 2, 3, 1, 1}, {{4, 4, 4}, 6, 3, 1, 1, 2, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_conv_case(&shapes[i], 2);
}

/* ---- batch norm ---- */

struct bn_case {
    struct apd_shape shape;
    struct apd_segment seg[3];
    int segments, relu, batch_stats;
    double count[3];
    size_t elems;
    double x[MOST], add[MOST], y[MOST], r[MOST];
    double gamma[APD_BN_SETS][8], beta[APD_BN_SETS][8], mean[8], variance[8];
    double sums[3 * 2 * 8], moments[3 * 2 * 8];
};

static void bn_moments_of(struct bn_case *c)
{
    OK(be->ops->bn_sums(be, c->shape, c->seg, c->segments, c->x, c->sums, 2 * (size_t)c->shape.c,
                        &err));
    if (c->batch_stats)
        OK(be->ops->bn_moments(be, c->shape.c, c->segments, c->sums, 2 * (size_t)c->shape.c,
                               c->count, 1e-5, c->moments, &err));
    else
        for (int s = 0; s < c->segments; s++)
            OK(be->ops->bn_moments_running(be, c->shape.c, c->mean, c->variance, 1e-5,
                                           c->moments + s * 2 * c->shape.c, &err));
}

static struct apd_bn bn_of(const struct bn_case *c)
{
    return (struct apd_bn){c->shape,
                           c->seg,
                           c->segments,
                           c->x,
                           c->moments,
                           {c->gamma[0], c->gamma[1]},
                           {c->beta[0], c->beta[1]}};
}

static double bn_loss(void *arg)
{
    struct bn_case *c = arg;
    struct apd_bn bn = bn_of(c);

    bn_moments_of(c);
    OK(be->ops->bn_forward(be, &bn, NULL, c->add, c->relu, c->y, NULL, &err));
    return dot(c->y, c->r, c->elems);
}

static struct bn_case *make_bn_case(int relu, int batch_stats)
{
    struct bn_case *c = calloc(1, sizeof *c);

    assert_non_null(c);
    c->shape = (struct apd_shape){3, 4, 3};
    c->segments = 3;
    c->seg[0] = (struct apd_segment){0, 3, APD_BN_MAIN};
    c->seg[1] = (struct apd_segment){3, 0, APD_BN_MAIN};
    c->seg[2] = (struct apd_segment){3, 2, APD_BN_AUX};
    for (int s = 0; s < c->segments; s++)
        c->count[s] = c->seg[s].count * c->shape.h * c->shape.w;
    c->relu = relu;
    c->batch_stats = batch_stats;
    c->elems = 5 * apd_shape_elems(c->shape);
    randomise(c->x, c->elems);
    randomise(c->add, c->elems);
    randomise(c->r, c->elems);
    randomise(c->mean, 8);
    for (int k = 0; k < 8; k++)
        c->variance[k] = 0.5 + fabs(random_value());
    for (int set = 0; set < APD_BN_SETS; set++) {
        randomise(c->gamma[set], 8);
        randomise(c->beta[set], 8);
    }
    return c;
}

/* Differences across the corner of ReLU are no derivative. */
static void keep_off_the_kink(struct bn_case *c)
{
    int relu = c->relu;

    c->relu = 0;
    (void)bn_loss(c);
    for (size_t k = 0; k < c->elems; k++)
        if (fabs(c->y[k]) < 0.01)
            c->add[k] += 0.03;
    c->relu = relu;
    (void)bn_loss(c);
}

static void check_bn_case(int relu, int batch_stats)
{
    struct bn_case *c = make_bn_case(relu, batch_stats);
    const struct apd_relu after = {.y = c->y};
    struct apd_bn bn = bn_of(c);
    double d_gamma[APD_BN_SETS][8] = {{0}}, d_beta[APD_BN_SETS][8] = {{0}}, d_sums[3 * 2 * 8];
    void *d_gammas[] = {d_gamma[0], d_gamma[1]}, *d_betas[] = {d_beta[0], d_beta[1]};
    double *d_g = calloc(MOST, sizeof *d_g), *d_x = calloc(MOST, sizeof *d_x);

    assert_true(d_g != NULL && d_x != NULL);
    keep_off_the_kink(c);
    OK(be->ops->bn_backward_sums(be, &bn, NULL, relu ? &after : NULL, c->r, NULL, d_g, d_sums, NULL,
                                 &err));
    OK(be->ops->bn_backward_data(be, &bn, NULL, d_g, d_sums, NULL, c->count, batch_stats, d_x, NULL,
                                 &err));
    OK(be->ops->bn_backward_params(be, c->shape.c, c->seg, c->segments, d_sums, d_gammas, d_betas,
                                   &err));
    check_gradient("bn d_x", bn_loss, c, c->x, d_x, c->elems);
    check_gradient("bn d_add", bn_loss, c, c->add, d_g, c->elems);
    for (int set = 0; set < APD_BN_SETS; set++) {
        check_gradient("bn d_gamma", bn_loss, c, c->gamma[set], d_gamma[set], (size_t)c->shape.c);
        check_gradient("bn d_beta", bn_loss, c, c->beta[set], d_beta[set], (size_t)c->shape.c);
    }
    free(d_g);
    free(d_x);
    free(c);
}

static void batch_norm_gradients(void **state)
{
    (void)state;
    for (int relu = 0; relu < 2; relu++)
        for (int batch_stats = 0; batch_stats < 2; batch_stats++)
            check_bn_case(relu, batch_stats);
}

/* ---- pooling ---- */

struct pool_case {
    struct apd_shape shape;
    int n, max;
    size_t in, out;
    double x[MOST], y[MOST], r[MOST];
    uint8_t which[MOST];
};

static double pool_loss(void *arg)
{
    struct pool_case *c = arg;

    if (c->max)
        OK(be->ops->maxpool_forward(be, c->shape, c->n, c->x, c->y, c->which, &err));
    else
        OK(be->ops->avgpool_forward(be, c->shape, c->n, c->x, c->y, &err));
    return dot(c->y, c->r, c->out);
}

static void pool_gradients(void **state)
{
    struct pool_case *c = calloc(1, sizeof *c);
    double *d_x = calloc(MOST, sizeof *d_x);

    (void)state;
    assert_true(c != NULL && d_x != NULL);
    c->shape = (struct apd_shape){3, 7, 6};
    c->n = 2;
    c->in = (size_t)c->n * apd_shape_elems(c->shape);
    for (c->max = 0; c->max < 2; c->max++) {
        c->out = (size_t)c->n * (c->max ? apd_shape_elems(apd_maxpool_out(c->shape)) : 3);
        for (size_t k = 0; k < c->in; k++) /* all different by more than H, in no order */
            c->x[k] = (double)(k * 37 % c->in) / (double)c->in;
        randomise(c->r, c->out);
        (void)pool_loss(c);
        if (c->max)
            OK(be->ops->maxpool_backward(be, c->shape, c->n, c->r, c->which, d_x, &err));
        else
            OK(be->ops->avgpool_backward(be, c->shape, c->n, c->r, d_x, &err));
        check_gradient(c->max ? "maxpool" : "avgpool", pool_loss, c, c->x, d_x, c->in);
    }
    free(d_x);
    free(c);
}

/* ---- classifier and loss ---- */

enum { ROWS = 5, INPUTS = 7, CLASSES = 6 };

struct head_case {
    double x[ROWS * INPUTS], w[CLASSES * INPUTS], b[CLASSES], z[ROWS * CLASSES];
    double keep[ROWS], weight[ROWS];
    int32_t label[ROWS], label2[ROWS];
    struct apd_targets targets;
};

/* sum_i weight_i CE_i, through one call per image, since losses are not multiplied by weights. */
static double head_loss(void *arg)
{
    static const struct apd_segment one = {0, 1, APD_BN_MAIN};
    struct head_case *c = arg;
    double sum = 0;

    OK(be->ops->linear_forward(be, ROWS, INPUTS, CLASSES, c->x, c->w, c->b, c->z, &err));
    for (int i = 0; i < ROWS; i++) {
        struct apd_targets t = c->targets;
        double loss[APD_LOSS_DOUBLES];

        t.label += i;
        t.weight = c->weight + i;
        if (t.label2 != NULL) {
            t.label2 += i;
            t.keep = c->keep + i;
        }
        OK(be->ops->softmax_ce(be, 1, CLASSES, c->z + i * CLASSES, &t, &one, 1, loss, NULL, &err));
        sum += c->weight[i] * loss[0];
    }
    return sum;
}

static void check_head_case(int mixed, double smoothing)
{
    static const struct apd_segment all = {0, ROWS, APD_BN_MAIN};
    struct head_case c = {0};
    double d_x[ROWS * INPUTS], d_w[CLASSES * INPUTS] = {0}, d_b[CLASSES] = {0};
    double d_z[ROWS * CLASSES];
    double loss[APD_LOSS_DOUBLES];

    randomise(c.x, ROWS * INPUTS);
    randomise(c.w, CLASSES * INPUTS);
    randomise(c.b, CLASSES);
    for (int i = 0; i < ROWS; i++) {
        c.keep[i] = (random_value() + 1) / 2;
        c.weight[i] = i == 2 ? 0 : random_value();
        c.label[i] = (i * 5) % CLASSES;
        c.label2[i] = (i * 3 + 1) % CLASSES;
    }
    c.targets = (struct apd_targets){c.label, mixed ? c.label2 : NULL, mixed ? c.keep : NULL,
                                     c.weight, smoothing};
    OK(be->ops->linear_forward(be, ROWS, INPUTS, CLASSES, c.x, c.w, c.b, c.z, &err));
    OK(be->ops->softmax_ce(be, ROWS, CLASSES, c.z, &c.targets, &all, 1, loss, d_z, &err));
    OK(be->ops->linear_backward_data(be, ROWS, INPUTS, CLASSES, d_z, c.w, d_x, &err));
    OK(be->ops->linear_backward_weights(be, ROWS, INPUTS, CLASSES, c.x, d_z, d_w, d_b, &err));
    check_gradient("classifier d_x", head_loss, &c, c.x, d_x, ROWS * INPUTS);
    check_gradient("classifier d_w", head_loss, &c, c.w, d_w, CLASSES * INPUTS);
    check_gradient("classifier d_b", head_loss, &c, c.b, d_b, CLASSES);
}

static void classifier_and_loss_gradients(void **state)
{
    (void)state;
    for (int mixed = 0; mixed < 2; mixed++)
        for (int smooth = 0; smooth < 2; smooth++)
            check_head_case(mixed, smooth * 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution_gradients),
        cmocka_unit_test(batch_norm_gradients),
        cmocka_unit_test(pool_gradients),
        cmocka_unit_test(classifier_and_loss_gradients),
    };
    const char *text = getenv("APD_TEST_SEED");
    struct apd_err err = {0};
    int failed;

    seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    printf("# APD_TEST_SEED=%llu\n", (unsigned long long)seed);
    if (apd_backend_ref64(&be, &err) != APD_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    be->ops->destroy(be);
    return failed;
}
