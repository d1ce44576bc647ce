#include "harness.h"

#include <math.h>
#include <string.h>

#define EPS       1e-5
#define TOLERANCE 2e-5

/* Everything a BN layer owns, on both backends. */
struct layer {
    struct apd_shape shape;
    int n;
    const struct segments *s;
    double count[4];
    struct both gamma[APD_BN_SETS], beta[APD_BN_SETS];
    struct both d_gamma[APD_BN_SETS], d_beta[APD_BN_SETS];
    struct both sums, moments, d_sums;
};

static struct layer make_layer(struct apd_shape shape, int n, const struct segments *s)
{
    size_t c = (size_t)shape.c;
    size_t rows = (size_t)s->count * 2;
    size_t most = channels(REF, shape.c) > channels(TESTED, shape.c) ? channels(REF, shape.c)
                                                                     : channels(TESTED, shape.c);
    struct layer l = {.shape = shape, .n = n, .s = s};

    for (int set = 0; set < APD_BN_SETS; set++) {
        l.gamma[set] = make_channels(shape.c, random_floats(c));
        l.beta[set] = make_channels(shape.c, random_floats(c));
        l.d_gamma[set] = make_channels(shape.c, random_floats(c));
        l.d_beta[set] = make_channels(shape.c, random_floats(c));
    }
    for (int k = 0; k < s->count; k++)
        l.count[k] = (double)s->seg[k].count * shape.h * shape.w;
    l.sums = make_bytes(rows * most * sizeof(double));
    l.d_sums = make_bytes(rows * most * sizeof(double));
    l.moments = make_bytes(rows * most * sizeof(double));
    return l;
}

static double size_of_sums(const struct layer *l)
{
    return sqrt((double)l->n * l->shape.h * l->shape.w);
}

static int check_moments(struct layer *l, struct both x)
{
    int bad;

    ON_BOTH(ops->bn_sums(be, l->shape, l->s->seg, l->s->count, x.at[b], l->sums.at[b],
                         2 * channels(b, l->shape.c), &err));
    bad = compare_sums("bn_sums", l->shape.c, l->s->count, l->sums, size_of_sums(l), TOLERANCE);
    ON_BOTH(ops->bn_moments(be, l->shape.c, l->s->count, l->sums.at[b], 2 * channels(b, l->shape.c),
                            l->count, EPS, l->moments.at[b], &err));
    return bad + compare_moments("bn_moments", l->shape.c, l->s->count, l->moments, TOLERANCE);
}

static int check_forward(struct layer *l, struct both x, struct both add, int with_add, int relu,
                         struct both y)
{
    for (int b = 0; b < BOTH; b++) {
        struct apd_backend *be = backend[b];
        const void *gamma[] = {l->gamma[0].at[b], l->gamma[1].at[b]};
        const void *beta[] = {l->beta[0].at[b], l->beta[1].at[b]};

        OK(be->ops->bn_forward(be, l->shape, l->s->seg, l->s->count, x.at[b], l->moments.at[b],
                               gamma, beta, with_add ? add.at[b] : NULL, relu, y.at[b], &err));
    }
    return compare_activation("bn_forward", l->shape, l->n, y, TOLERANCE);
}

static int check_backward(struct layer *l, struct both d_y, struct both d_y2, int with_second,
                          struct both y, int relu, struct both x, int batch_stats, struct both d_g,
                          struct both d_x)
{
    int bad = 0;

    for (int b = 0; b < BOTH; b++) {
        struct apd_backend *be = backend[b];
        const struct apd_segment *seg = l->s->seg;
        const void *gamma[] = {l->gamma[0].at[b], l->gamma[1].at[b]};
        void *d_gamma[] = {l->d_gamma[0].at[b], l->d_gamma[1].at[b]};
        void *d_beta[] = {l->d_beta[0].at[b], l->d_beta[1].at[b]};

        OK(be->ops->bn_backward_sums(be, l->shape, seg, l->s->count, d_y.at[b],
                                     with_second ? d_y2.at[b] : NULL, relu ? y.at[b] : NULL,
                                     x.at[b], l->moments.at[b], d_g.at[b], l->d_sums.at[b], &err));
        OK(be->ops->bn_backward_params(be, l->shape.c, seg, l->s->count, l->d_sums.at[b], d_gamma,
                                       d_beta, &err));
        if (d_x.at[b] != d_g.at[b])
            continue;
        OK(be->ops->bn_backward_data(be, l->shape, seg, l->s->count, d_g.at[b], x.at[b],
                                     l->moments.at[b], gamma, l->d_sums.at[b], l->count,
                                     batch_stats, d_x.at[b], &err));
    }
    bad += compare_sums("bn_backward_sums", l->shape.c, l->s->count, l->d_sums, size_of_sums(l),
                        TOLERANCE);
    for (int set = 0; set < APD_BN_SETS; set++) {
        bad += compare_channels("d_gamma", l->shape.c, l->d_gamma[set], size_of_sums(l), TOLERANCE);
        bad += compare_channels("d_beta", l->shape.c, l->d_beta[set], size_of_sums(l), TOLERANCE);
    }
    if (d_x.at[REF] == d_g.at[REF])
        return bad + compare_activation("bn_backward_data", l->shape, l->n, d_x, TOLERANCE);
    bad += compare_activation("bn_backward_sums d_g", l->shape, l->n, d_g, TOLERANCE);
    for (int b = 0; b < BOTH; b++) {
        struct apd_backend *be = backend[b];
        const void *gamma[] = {l->gamma[0].at[b], l->gamma[1].at[b]};

        OK(be->ops->bn_backward_data(be, l->shape, l->s->seg, l->s->count, d_g.at[b], x.at[b],
                                     l->moments.at[b], gamma, l->d_sums.at[b], l->count,
                                     batch_stats, d_x.at[b], &err));
    }
    return bad + compare_activation("bn_backward_data", l->shape, l->n, d_x, TOLERANCE);
}

/* Running statistics move by the sums of segment k, and give moments for evaluation. */
static int check_running(struct layer *l, int k)
{
    size_t c = (size_t)l->shape.c;
    float *ones = floats(c);
    struct both mean, variance, moments = make_bytes(2 * channels(TESTED, l->shape.c) * 8);
    int bad;

    for (size_t i = 0; i < c; i++)
        ones[i] = 1;
    mean = make_channels(l->shape.c, random_floats(c));
    variance = make_channels(l->shape.c, ones);
    for (int b = 0; b < BOTH; b++) {
        struct apd_backend *be = backend[b];
        const double *sums = (double *)l->sums.at[b] + 2 * (size_t)k * channels(b, l->shape.c);

        OK(be->ops->bn_update_running(be, l->shape.c, sums, l->count[k], 0.1, mean.at[b],
                                      variance.at[b], &err));
    }
    bad = compare_channels("running mean", l->shape.c, mean, 1, TOLERANCE);
    bad += compare_channels("running variance", l->shape.c, variance, 1, TOLERANCE);
    ON_BOTH(ops->bn_moments_running(be, l->shape.c, mean.at[b], variance.at[b], EPS, moments.at[b],
                                    &err));
    return bad + compare_moments("bn_moments_running", l->shape.c, 1, moments, TOLERANCE);
}

/* in_place: outputs go over inputs wherever the table allows it. */
int check_bn(struct apd_shape shape, int n, const struct segments *s, int in_place)
{
    size_t elems = (size_t)n * apd_shape_elems(shape);
    struct layer l = make_layer(shape, n, s);
    const float *values = random_floats(elems);
    int bad = 0;

    for (int relu = 0; relu < 2; relu++)
        for (int second = 0; second < 2; second++) {
            struct both x = make_activation(shape, n, values);
            struct both add = make_activation(shape, n, random_floats(elems));
            struct both d_y = make_activation(shape, n, random_floats(elems));
            struct both d_y2 = make_activation(shape, n, random_floats(elems));
            struct both y = in_place && second ? add : make_result(shape, n);
            struct both d_g = in_place ? second ? d_y2 : d_y : make_result(shape, n);
            struct both d_x = in_place ? d_g : make_result(shape, n);

            bad += check_moments(&l, x);
            bad += check_forward(&l, x, add, second, relu, y);
            copy_from_ref(shape, n,
                          y); /* one that is 0 here and 1e-8 there would be masked there */
            bad += check_backward(&l, d_y, d_y2, second, y, relu, x, relu, d_g, d_x);
            if (in_place)
                bad += check_forward(&l, x, add, 0, relu, x);
        }
    for (int k = 0; k < s->count; k++)
        bad += check_running(&l, k);
    release();
    return bad;
}

static const struct apd_backend_ops *right_ops;

/* ReLU left out where add is given. */
static enum apd_code wrong_bn_forward(struct apd_backend *be, struct apd_shape shape,
                                      const struct apd_segment *seg, int segments, const void *x,
                                      const void *moments, const void *const gamma[APD_BN_SETS],
                                      const void *const beta[APD_BN_SETS], const void *add,
                                      int relu, void *y, struct apd_err *err)
{
    return right_ops->bn_forward(be, shape, seg, segments, x, moments, gamma, beta, add,
                                 relu && add == NULL, y, err);
}

int check_wrong_bn(void)
{
    struct apd_backend_ops wrong = *backend[TESTED]->ops;
    struct segments lists[4];
    int bad;

    right_ops = backend[TESTED]->ops;
    wrong.bn_forward = wrong_bn_forward;
    segment_lists(3, lists);
    backend[TESTED]->ops = &wrong;
    bad = check_bn((struct apd_shape){5, 7, 5}, 3, &lists[1], 0);
    backend[TESTED]->ops = right_ops;
    assert_int_equal(check_bn((struct apd_shape){5, 7, 5}, 3, &lists[1], 0), 0);
    return bad;
}
