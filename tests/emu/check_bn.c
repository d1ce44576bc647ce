/* Batch norm: the whole way of a layer, forward and backward, each step against its formula in
 * double, from what the step before has stored. */
#include "check_bn.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define EPS           1e-5
#define MOST_CHANNELS 264

static float *channel_vector(int c)
{
    float *p = floats((size_t)rounded_up(c));

    for (int k = 0; k < c; k++)
        p[k] = (float)random_unit();
    return p;
}

struct layer make_layer(const struct bn_case *k)
{
    struct layer l = {.k = k, .wide = rounded_up(k->shape.c)};
    size_t wide = (size_t)l.wide, segments = (size_t)k->seg.count;
    size_t bytes = activation_elems(k->shape, k->n) * elem_bytes(k->type);

    l.x = random_activation(k->type, k->shape, k->n, k->mean, k->deviation);
    l.add = random_activation(k->type, k->shape, k->n, 0, 1);
    l.d_y = random_activation(k->type, k->shape, k->n, 0, 1);
    l.d_y2 = random_activation(k->type, k->shape, k->n, 0, 1);
    l.y = garbage_activation(k->type, k->shape, k->n);
    l.d_g = garbage_activation(k->type, k->shape, k->n);
    l.d_x = memory(bytes);
    memset(l.d_x, 0xff, bytes);
    l.mask = memory(activation_elems(k->shape, k->n) / 8);
    for (int set = 0; set < APD_BN_SETS; set++) {
        l.gamma[set] = channel_vector(k->shape.c);
        l.beta[set] = channel_vector(k->shape.c);
        l.d_gamma[set] = channel_vector(k->shape.c);
        l.d_beta[set] = channel_vector(k->shape.c);
    }
    for (int set = 0; set < APD_BN_SETS && k->shape.c > 1; set++) {
        l.gamma[set][k->shape.c - 1] = 1e-7f;
        l.beta[set][k->shape.c - 1] = 0;
    }
    l.stride = 2 * wide + 3;
    l.sums = doubles(segments * l.stride);
    l.d_sums = doubles(segments * 2 * wide);
    l.moments = floats(segments * 2 * wide);
    l.scratch = memory(apd_cuda_scratch_bytes(k->shape.c, k->seg.count));
    for (size_t s = 0; s < segments; s++)
        l.count[s] = (double)k->seg.at[s].count * k->shape.h * k->shape.w;
    return l;
}

struct apd_cuda_bn bn_of(const struct layer *l)
{
    return (struct apd_cuda_bn){.type = l->k->type,
                                .shape = l->k->shape,
                                .seg = &l->k->seg,
                                .x = l->x,
                                .moments = l->moments,
                                .gamma = {{l->gamma[0], l->gamma[1]}},
                                .beta = {{l->beta[0], l->beta[1]}}};
}

struct apd_cuda_segments segments_of(int which, int n)
{
    struct apd_cuda_segments seg = {.count = 1, .at = {{0, n, APD_BN_MAIN}}};

    if (which == 0)
        return seg;
    seg.count = 3;
    seg.at[0] = (struct apd_segment){0, which == 1 ? 0 : 2, APD_BN_AUX};
    seg.at[1] = (struct apd_segment){seg.at[0].count, which == 2 ? 0 : n - 3, APD_BN_MAIN};
    seg.at[2].first = seg.at[1].first + seg.at[1].count;
    seg.at[2].count = n - seg.at[2].first;
    seg.at[2].set = APD_BN_AUX;
    return seg;
}

void expect_mask(const struct layer *l)
{
    size_t image = activation_elems(l->k->shape, 1);

    for (int s = 0; s < l->k->seg.count; s++) {
        size_t from = (size_t)l->k->seg.at[s].first * image;
        size_t end = from + (size_t)l->k->seg.at[s].count * image;

        for (size_t e = from; e < end; e++)
            assert_int_equal(l->mask[e / 8] >> e % 8 & 1, !(get(l->k->type, l->y, e) <= 0));
    }
}

static void check_sums(struct layer *l)
{
    const struct bn_case *k = l->k;

    OK(apd_cuda_bn_sums(k->type, k->shape, &k->seg, l->x, l->sums, l->stride, l->scratch, NULL));
    EACH_CHANNEL(l, s, c)
    {
        double sum = 0, squares = 0, size = 0;

        EACH_VALUE(l, s, i, p)
        {
            double v = at(l, l->x, i, p, c);

            sum += v;
            squares += v * v;
            size += fabs(v);
        }
        expect_near("sum", l->sums[(size_t)s * l->stride + (size_t)c], sum, 2e-7 * size);
        expect_near("squares", l->sums[(size_t)s * l->stride + (size_t)(l->wide + c)], squares,
                    1e-6 * squares);
    }
    for (int s = 0; s < k->seg.count; s++) {
        for (int c = k->shape.c; c < l->wide; c++)
            assert_true(l->sums[(size_t)s * l->stride + (size_t)c] == 0);
        for (size_t gap = 2 * (size_t)l->wide; gap < l->stride; gap++)
            assert_true(l->sums[(size_t)s * l->stride + gap] == 0);
    }
    record(l->sums, (size_t)k->seg.count * l->stride * sizeof *l->sums);
}

static void check_moments(struct layer *l)
{
    const struct bn_case *k = l->k;

    OK(apd_cuda_bn_moments(k->shape.c, k->seg.count, l->sums, l->stride, l->count, EPS, l->moments,
                           NULL));
    EACH_CHANNEL(l, s, c)
    {
        const double *sums = l->sums + (size_t)s * l->stride;
        const float *m = l->moments + (size_t)s * 2 * (size_t)l->wide;
        double mean, variance;

        if (l->count[s] == 0) {
            assert_true(m[c] == 0 && m[l->wide + c] == 0);
            continue;
        }
        mean = sums[c] / l->count[s];
        variance = fmax(sums[l->wide + c] / l->count[s] - mean * mean, 0);
        expect_elem("mean", APD_CUDA_F32, m[c], mean, 0);
        expect_elem("rstd", APD_CUDA_F32, m[l->wide + c], 1 / sqrt(variance + EPS), 0);
    }
    record(l->moments, (size_t)k->seg.count * 2 * (size_t)l->wide * sizeof(float));
}

static void check_running(struct layer *l)
{
    int c = l->k->shape.c;
    float *mean = channel_vector(c), *variance = channel_vector(c);
    float *old_mean = channel_vector(c), *old_variance = channel_vector(c);
    float *moments = floats(2 * (size_t)l->wide);
    double count = l->count[0];

    for (int k = 0; k < c; k++) {
        old_mean[k] = mean[k];
        old_variance[k] = variance[k] = fabsf(variance[k]);
    }
    OK(apd_cuda_bn_update_running(c, l->sums, count, 0.1, mean, variance, NULL));
    for (int k = 0; k < c; k++) {
        double m = count > 0 ? l->sums[k] / count : 0;
        double v = count > 0 ? fmax(l->sums[l->wide + k] / count - m * m, 0) : 0;

        expect_elem("running mean", APD_CUDA_F32, mean[k],
                    count > 0 ? 0.9 * old_mean[k] + 0.1 * m : old_mean[k], 0);
        expect_elem(
            "running variance", APD_CUDA_F32, variance[k],
            count > 1 ? 0.9 * old_variance[k] + 0.1 * v * count / (count - 1) : old_variance[k], 0);
    }
    OK(apd_cuda_bn_moments_running(c, mean, variance, EPS, moments, NULL));
    for (int k = 0; k < c; k++) {
        assert_true(moments[k] == mean[k]);
        expect_elem("running rstd", APD_CUDA_F32, moments[l->wide + k], 1 / sqrt(variance[k] + EPS),
                    0);
    }
    record(moments, 2 * (size_t)l->wide * sizeof *moments);
}

static void check_forward(struct layer *l)
{
    const struct bn_case *k = l->k;
    const void *add = k->add ? l->add : NULL;
    size_t bytes = activation_elems(k->shape, k->n) * elem_bytes(k->type);
    struct apd_cuda_bn bn = bn_of(l);
    void *alone = garbage_activation(k->type, k->shape, k->n);

    OK(apd_cuda_bn_forward(&bn, NULL, add, k->relu, l->y, l->mask, NULL));
    OK(apd_cuda_bn_forward(&bn, NULL, add, k->relu, alone, NULL, NULL));
    assert_memory_equal(alone, l->y, bytes);
    expect_mask(l);
    EACH_CHANNEL(l, s, c)
    {
        const float *m = l->moments + (size_t)s * 2 * (size_t)l->wide;
        double scale = (double)m[l->wide + c] * l->gamma[k->seg.at[s].set][c];

        EACH_VALUE(l, s, i, p)
        {
            double x = at(l, l->x, i, p, c) - m[c];
            double want = x * scale + l->beta[k->seg.at[s].set][c];

            if (k->add)
                want += at(l, l->add, i, p, c);
            expect_elem("y", k->type, at(l, l->y, i, p, c), k->relu && want < 0 ? 0 : want,
                        fabs(x * scale) + fabs((double)m[c] * scale) + 2);
        }
    }
    expect_zero_padding(k->type, k->shape, k->n, l->y);
    record(l->y, bytes);
}

/* Remade from x, ReLU lets through what the mask says, to the bit. */
static void check_remade(const struct layer *l)
{
    const struct apd_cuda_relu relu = {APD_CUDA_RELU_REMADE, NULL};
    const struct bn_case *k = l->k;
    size_t bytes = activation_elems(k->shape, k->n) * elem_bytes(k->type);
    size_t sums = (size_t)k->seg.count * 2 * (size_t)l->wide;
    struct apd_cuda_bn bn = bn_of(l);
    void *d_g = memory(bytes);
    double *d_sums = doubles(sums);

    memset(d_g, 0xff, bytes);
    OK(apd_cuda_bn_backward_sums(&bn, &relu, l->d_y, k->second ? l->d_y2 : NULL, d_g, d_sums, NULL,
                                 NULL, l->scratch, NULL));
    assert_memory_equal(d_g, l->d_g, bytes);
    assert_memory_equal(d_sums, l->d_sums, sums * sizeof *d_sums);
}

static void check_backward_sums(struct layer *l)
{
    const struct bn_case *k = l->k;
    struct apd_cuda_relu relu = {k->relu ? APD_CUDA_RELU_MASK : APD_CUDA_RELU_NONE, l->mask};
    struct apd_cuda_bn bn = bn_of(l);
    const struct apd_shape shape = k->shape;
    void *held = memory(activation_elems(shape, 1) * elem_bytes(k->type)); /* of one value */

    OK(apd_cuda_bn_backward_sums(&bn, &relu, l->d_y, k->second ? l->d_y2 : NULL, l->d_g, l->d_sums,
                                 NULL, NULL, l->scratch, NULL));
    if (k->relu && !k->add)
        check_remade(l);
    EACH_CHANNEL(l, s, c)
    {
        const float *m = l->moments + (size_t)s * 2 * (size_t)l->wide;
        const double *got = l->d_sums + (size_t)s * 2 * (size_t)l->wide;
        double sum = 0, sum_xhat = 0, size = 0, size_xhat = 0;

        EACH_VALUE(l, s, i, p)
        {
            double g = at(l, l->d_y, i, p, c), xhat;

            if (k->second) {
                put(k->type, held, 0, g + at(l, l->d_y2, i, p, c));
                g = get(k->type, held, 0);
            }
            if (k->relu && at(l, l->y, i, p, c) <= 0)
                g = 0;
            assert_true(at(l, l->d_g, i, p, c) == g);
            xhat = (at(l, l->x, i, p, c) - m[c]) * m[l->wide + c];
            sum += g;
            sum_xhat += g * xhat;
            size += fabs(g);
            size_xhat += fabs(g) * (fabs(xhat) + fabs((double)m[c] * m[l->wide + c]));
        }
        expect_near("sum g", got[c], sum, 2e-6 * size);
        expect_near("sum g xhat", got[l->wide + c], sum_xhat, 2e-6 * size_xhat);
    }
    expect_zero_padding(k->type, shape, k->n, l->d_g);
    record(l->d_sums, (size_t)k->seg.count * 2 * (size_t)l->wide * sizeof(double));
}

static void check_backward_data(struct layer *l)
{
    const struct bn_case *k = l->k;
    struct apd_cuda_bn bn = bn_of(l);

    OK(apd_cuda_bn_backward_data(&bn, l->d_g, l->d_sums, l->count, k->batch_stats, l->d_x, NULL,
                                 NULL, NULL, NULL));
    EACH_CHANNEL(l, s, c)
    {
        const float *m = l->moments + (size_t)s * 2 * (size_t)l->wide;
        const double *d_sums = l->d_sums + (size_t)s * 2 * (size_t)l->wide;
        double rstd = m[l->wide + c], scale = rstd * l->gamma[k->seg.at[s].set][c];

        EACH_VALUE(l, s, i, p)
        {
            double g = at(l, l->d_g, i, p, c), xhat = (at(l, l->x, i, p, c) - m[c]) * rstd;
            double want = g, slope = d_sums[l->wide + c] / l->count[s];

            if (k->batch_stats)
                want -= d_sums[c] / l->count[s] + xhat * slope;
            expect_elem("d_x", k->type, at(l, l->d_x, i, p, c), scale * want,
                        fabs(scale) *
                            (2 + (fabs(xhat) + fabs((double)m[c] * rstd)) * (1 + fabs(slope))));
        }
    }
    expect_zero_padding(k->type, k->shape, k->n, l->d_x);
    record(l->d_x, activation_elems(k->shape, k->n) * elem_bytes(k->type));
}

static void check_backward_params(struct layer *l)
{
    const struct bn_case *k = l->k;
    float want_gamma[APD_BN_SETS][MOST_CHANNELS], want_beta[APD_BN_SETS][MOST_CHANNELS];
    float *const none[APD_BN_SETS] = {NULL}; /* a set that no segment has need not be there */
    const struct apd_cuda_segments nothing = {.count = 1};

    for (int set = 0; set < APD_BN_SETS; set++) {
        memcpy(want_gamma[set], l->d_gamma[set], (size_t)l->wide * sizeof(float));
        memcpy(want_beta[set], l->d_beta[set], (size_t)l->wide * sizeof(float));
    }
    OK(apd_cuda_bn_backward_params(k->shape.c, &nothing, l->d_sums, none, none, NULL));
    for (int s = 0; s < k->seg.count; s++) /* sums of other workers must not count where none is */
        if (k->seg.at[s].count == 0)
            l->d_sums[(size_t)s * 2 * (size_t)l->wide] = 1;
    OK(apd_cuda_bn_backward_params(k->shape.c, &k->seg, l->d_sums, l->d_gamma, l->d_beta, NULL));
    EACH_CHANNEL(l, s, c)
    {
        const double *d_sums = l->d_sums + (size_t)s * 2 * (size_t)l->wide;
        int set = k->seg.at[s].set;

        if (k->seg.at[s].count == 0)
            continue;
        want_gamma[set][c] = (float)(want_gamma[set][c] + d_sums[l->wide + c]);
        want_beta[set][c] = (float)(want_beta[set][c] + d_sums[c]);
    }
    for (int set = 0; set < APD_BN_SETS; set++) {
        assert_memory_equal(l->d_gamma[set], want_gamma[set], (size_t)l->wide * sizeof(float));
        assert_memory_equal(l->d_beta[set], want_beta[set], (size_t)l->wide * sizeof(float));
    }
}

static void check_layer(const void *argument)
{
    struct layer l = make_layer(argument);

    check_sums(&l);
    check_moments(&l);
    check_running(&l);
    check_forward(&l);
    check_backward_sums(&l);
    check_backward_data(&l);
    check_backward_params(&l);
}

void test_bn(void **state)
{
    static const struct apd_shape shapes[] = {{1, 3, 5},
                                              {3, 7, 5},
                                              {8, 1, 1},
                                              {10, 9, 7},
                                              {64, 5, 3},
                                              {200, 3, 3},
                                              {MOST_CHANNELS, 1, 3}};
    int tried = 0;

    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int type = 0; type < APD_CUDA_TYPES; type++)
            for (int which = 0; which < 4; which++, tried++) {
                struct bn_case k = {.type = (enum apd_cuda_type)type,
                                    .shape = shapes[s],
                                    .n = 5,
                                    .seg = segments_of(which, 5),
                                    .add = tried % 2,
                                    .relu = tried / 2 % 2,
                                    .second = tried % 3 == 0,
                                    .batch_stats = tried % 5 != 0,
                                    .mean = 0.5,
                                    .deviation = 1};

                if (few() && (which != 3 || (s != 1 && s != 4)))
                    continue;
                in_every_order(check_layer, &k);
            }
}

/* The variance stays good where the mean is a hundred deviations away, in long sums too. */
static void check_variance(const void *argument)
{
    const struct bn_case *k = argument;
    struct layer l = make_layer(k);

    OK(apd_cuda_bn_sums(k->type, k->shape, &k->seg, l.x, l.sums, l.stride, l.scratch, NULL));
    EACH_CHANNEL(&l, s, c)
    {
        double mean = 0, variance = 0, got_mean = l.sums[c] / l.count[s];
        double got = l.sums[l.wide + c] / l.count[s] - got_mean * got_mean;

        EACH_VALUE(&l, s, i, p)
        mean += at(&l, l.x, i, p, c) / l.count[s];
        EACH_VALUE(&l, s, i, p)
        variance += pow(at(&l, l.x, i, p, c) - mean, 2) / l.count[s];
        expect_near("variance", got, variance, 1e-5 * variance);
    }
    record(l.sums, l.stride * sizeof *l.sums);
}

void test_bn_variance(void **state)
{
    (void)state;
    for (int shape = 0; shape < 2; shape++) {
        struct bn_case k = {.type = APD_CUDA_F32,
                            .shape = {shape == 0 ? 3 : 16, 56, 57},
                            .n = few() ? 1 : 7,
                            .mean = 57.7, /* the deviation of a uniform is 0.577 */
                            .deviation = 1};

        k.seg = segments_of(0, k.n);
        in_every_order(check_variance, &k);
    }
}

/* Rounding can leave the variance of a constant below zero. */
void test_bn_constant(void **state)
{
    double *sums = doubles(16), count = 3;
    float *moments = floats(16), *mean = floats(8), *variance = floats(8);

    (void)state;
    sums[0] = 3;
    sums[8] = 3 - 1e-4;
    OK(apd_cuda_bn_moments(1, 1, sums, 16, &count, EPS, moments, NULL));
    expect_elem("rstd", APD_CUDA_F32, moments[8], 1 / sqrt(EPS), 0);
    OK(apd_cuda_bn_update_running(1, sums, count, 1, mean, variance, NULL));
    assert_true(variance[0] == 0);
    sums[8] = NAN; /* but NaN is not hidden */
    OK(apd_cuda_bn_moments(1, 1, sums, 16, &count, EPS, moments, NULL));
    assert_true(isnan(moments[8]));
    release();
}

/* A segment whose moments come from elsewhere keeps them. */
void test_bn_moments_left(void **state)
{
    double *sums = doubles(2 * 16), count[2] = {-1, 2};
    float *moments = floats(2 * 16);

    (void)state;
    for (int k = 0; k < 32; k++) {
        sums[k] = 4;
        moments[k] = 7;
    }
    OK(apd_cuda_bn_moments(1, 2, sums, 16, count, EPS, moments, NULL));
    for (int k = 0; k < 16; k++)
        assert_true(moments[k] == 7);
    assert_true(moments[16] == 2);
    release();
}

/* More segments than one launch takes, as SyncBN over many lanes makes. */
void test_bn_many_segments(void **state)
{
    struct bn_case k = {.type = APD_CUDA_F16,
                        .shape = {10, 1, 3},
                        .n = 140,
                        .relu = 1,
                        .batch_stats = 1,
                        .deviation = 1};

    (void)state;
    if (few())
        return;
    k.seg.count = 70;
    for (int s = 0; s < 70; s++)
        k.seg.at[s] = (struct apd_segment){2 * s, 2, (enum apd_bn_set)(s % 2)};
    in_every_order(check_layer, &k);
}

/* Parts of the sums of a zero activation, one segment: each leaves a zero in scratch. */
static int parts_of_sums(struct apd_shape shape, int n)
{
    struct apd_cuda_segments seg = segments_of(0, n);
    size_t row = 2 * (size_t)rounded_up(shape.c), bytes = apd_cuda_scratch_bytes(shape.c, 1);
    double *scratch = memory(bytes), *sums = doubles(row);
    int parts = 0;

    memset(scratch, 0xff, bytes);
    OK(apd_cuda_bn_sums(APD_CUDA_F16, shape, &seg,
                        memory(activation_elems(shape, n) * elem_bytes(APD_CUDA_F16)), sums, row,
                        scratch, NULL));
    while ((size_t)parts < bytes / sizeof(double) / row && scratch[(size_t)parts * row] == 0)
        parts++;
    release();
    return parts;
}

/* Few pixels are spread over as many blocks as a GPU needs, down to four of them a thread. */
void test_bn_parts(void **state)
{
    (void)state;
    assert_int_equal(parts_of_sums((struct apd_shape){512, 1, 1}, 5), 1);
    if (few())
        return;
    assert_int_equal(parts_of_sums((struct apd_shape){512, 7, 7}, 80), 123); /* 4 pixels a thread */
    assert_int_equal(parts_of_sums((struct apd_shape){512, 14, 14}, 80), 132); /* of 2 tiles */
    assert_int_equal(parts_of_sums((struct apd_shape){256, 56, 56}, 22), 270); /* 32 pixels */
}
