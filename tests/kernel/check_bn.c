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
    struct both x, sums, moments, d_sums, d_x;
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
    l.x = make_activation(shape, n, random_floats((size_t)n * apd_shape_elems(shape)));
    l.sums = make_bytes(rows * most * sizeof(double));
    l.d_sums = make_bytes(rows * most * sizeof(double));
    l.moments = make_bytes(rows * most * sizeof(double));
    return l;
}

/* l on backend b, as its operations want it. */
static struct apd_bn bn_of(const struct layer *l, int b)
{
    return (struct apd_bn){l->shape,
                           l->s->seg,
                           l->s->count,
                           l->x.at[b],
                           l->moments.at[b],
                           {l->gamma[0].at[b], l->gamma[1].at[b]},
                           {l->beta[0].at[b], l->beta[1].at[b]}};
}

/* A batch norm and what it is joined with: an activation that is added, or another batch norm. */
struct joint {
    struct layer *l, *other; /* other: NULL, none */
    int with_add, relu;
    struct both add, y, mask;
};

static double size_of_sums(const struct layer *l)
{
    return sqrt((double)l->n * l->shape.h * l->shape.w);
}

static int check_moments(struct layer *l)
{
    int bad;

    ON_BOTH(ops->bn_sums(be, l->shape, l->s->seg, l->s->count, l->x.at[b], l->sums.at[b],
                         2 * channels(b, l->shape.c), &err));
    bad = compare_sums("bn_sums", l->shape.c, l->s->count, l->sums, size_of_sums(l), TOLERANCE);
    ON_BOTH(ops->bn_moments(be, l->shape.c, l->s->count, l->sums.at[b], 2 * channels(b, l->shape.c),
                            l->count, EPS, l->moments.at[b], &err));
    return bad + compare_moments("bn_moments", l->shape.c, l->s->count, l->moments, TOLERANCE);
}

/* Segment after segment: of those that are empty nothing is written, moments with count -1 stay. */
static int check_moments_apart(struct layer *l)
{
    for (int k = 0; k < l->s->count; k++) {
        double count[4] = {-1, -1, -1, -1};

        count[k] = l->count[k];
        ON_BOTH(ops->bn_moments(be, l->shape.c, l->s->count, l->sums.at[b],
                                2 * channels(b, l->shape.c), count, EPS, l->moments.at[b], &err));
    }
    return compare_moments("bn_moments apart", l->shape.c, l->s->count, l->moments, TOLERANCE);
}

static void forward(const struct joint *j, int b, const struct apd_segment *seg)
{
    struct apd_backend *be = backend[b];
    struct apd_bn bn = bn_of(j->l, b), other;

    bn.seg = seg;
    if (j->other != NULL) {
        other = bn_of(j->other, b);
        other.seg = seg;
    }
    OK(be->ops->bn_forward(be, &bn, j->other != NULL ? &other : NULL,
                           j->with_add ? j->add.at[b] : NULL, j->relu, j->y.at[b], j->mask.at[b],
                           &err));
}

static int check_forward(const struct joint *j)
{
    for (int b = 0; b < BOTH; b++)
        forward(j, b, j->l->s->seg);
    return compare_activation("bn_forward", j->l->shape, j->l->n, j->y, TOLERANCE);
}

/* One segment after another, the others empty. */
static int check_forward_apart(const struct joint *j)
{
    for (int k = 0; k < j->l->s->count; k++) {
        struct apd_segment seg[4];

        for (int s = 0; s < j->l->s->count; s++) {
            seg[s] = j->l->s->seg[s];
            seg[s].count = s == k ? seg[s].count : 0;
        }
        for (int b = 0; b < BOTH; b++)
            forward(j, b, seg);
    }
    return compare_activation("bn_forward apart", j->l->shape, j->l->n, j->y, TOLERANCE);
}

static void backward_params(struct layer *l)
{
    for (int b = 0; b < BOTH; b++) {
        struct apd_backend *be = backend[b];
        void *d_gamma[] = {l->d_gamma[0].at[b], l->d_gamma[1].at[b]};
        void *d_beta[] = {l->d_beta[0].at[b], l->d_beta[1].at[b]};

        OK(be->ops->bn_backward_params(be, l->shape.c, l->s->seg, l->s->count, l->d_sums.at[b],
                                       d_gamma, d_beta, &err));
    }
}

static int compare_backward(const struct layer *l)
{
    int bad = compare_sums("bn_backward_sums", l->shape.c, l->s->count, l->d_sums, size_of_sums(l),
                           TOLERANCE);

    for (int set = 0; set < APD_BN_SETS; set++) {
        bad += compare_channels("d_gamma", l->shape.c, l->d_gamma[set], size_of_sums(l), TOLERANCE);
        bad += compare_channels("d_beta", l->shape.c, l->d_beta[set], size_of_sums(l), TOLERANCE);
    }
    return bad + compare_activation("bn_backward_data", l->shape, l->n, l->d_x, TOLERANCE);
}

static int check_backward(struct joint *j, struct both d_y, struct both d_y2, int with_second,
                          int batch_stats, struct both d_g)
{
    struct layer *l = j->l, *o = j->other;
    int bad = 0;

    for (int b = 0; b < BOTH; b++) {
        struct apd_backend *be = backend[b];
        const struct apd_relu relu = {j->y.at[b], j->mask.at[b]};
        struct apd_bn bn = bn_of(l, b), other = bn_of(o != NULL ? o : l, b);

        OK(be->ops->bn_backward_sums(be, &bn, o != NULL ? &other : NULL, j->relu ? &relu : NULL,
                                     d_y.at[b], with_second ? d_y2.at[b] : NULL, d_g.at[b],
                                     l->d_sums.at[b], o != NULL ? o->d_sums.at[b] : NULL, &err));
    }
    if (l->d_x.at[REF] != d_g.at[REF] && (o == NULL || o->d_x.at[REF] != d_g.at[REF]))
        bad += compare_activation("bn_backward_sums d_g", l->shape, l->n, d_g, TOLERANCE);
    for (int b = 0; b < BOTH; b++) {
        struct apd_backend *be = backend[b];
        struct apd_bn bn = bn_of(l, b), other = bn_of(o != NULL ? o : l, b);

        OK(be->ops->bn_backward_data(be, &bn, o != NULL ? &other : NULL, d_g.at[b], l->d_sums.at[b],
                                     o != NULL ? o->d_sums.at[b] : NULL, l->count, batch_stats,
                                     l->d_x.at[b], o != NULL ? o->d_x.at[b] : NULL, &err));
    }
    backward_params(l);
    bad += compare_backward(l);
    if (o == NULL)
        return bad;
    backward_params(o);
    return bad + compare_backward(o);
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

static struct both make_mask(struct apd_shape shape, int n)
{
    struct both mask = {{NULL}};
    size_t bytes = backend[TESTED]->ops->relu_mask_bytes(backend[TESTED], shape, n);

    return bytes > 0 ? make_bytes(bytes) : mask;
}

enum { ALONE, WITH_ADD, WITH_OTHER, KINDS };

/* The outputs of a joint, over its inputs wherever the table allows it. */
static int check_joint(struct layer *l, struct layer *o, int kind, int relu, int in_place)
{
    struct apd_shape shape = l->shape;
    size_t elems = (size_t)l->n * apd_shape_elems(shape);
    struct both d_y = make_activation(shape, l->n, random_floats(elems));
    struct both d_y2 = make_activation(shape, l->n, random_floats(elems));
    struct both d_g = in_place ? kind == WITH_ADD ? d_y2 : d_y : make_result(shape, l->n);
    struct joint j = {.l = l, .other = kind == WITH_OTHER ? o : NULL, .relu = relu};
    int bad;

    j.with_add = kind == WITH_ADD;
    j.add = make_activation(shape, l->n, random_floats(elems));
    j.y = in_place && j.with_add ? j.add : make_result(shape, l->n);
    if (kind != ALONE)
        j.mask = make_mask(shape, l->n);
    l->d_x = in_place && kind != WITH_OTHER ? d_g : make_result(shape, l->n);
    o->d_x = in_place ? d_g : make_result(shape, l->n);
    bad = check_forward(&j);
    copy_to_ref(shape, l->n, j.y); /* one that is 0 here and 1e-8 there would be masked there */
    bad += check_backward(&j, d_y, d_y2, kind == WITH_ADD, relu, d_g);
    if (in_place && kind == ALONE) {
        j.y = l->x;
        bad += check_forward(&j);
    } else if (!in_place) {
        bad += check_forward_apart(&j);
    }
    return bad;
}

/* in_place: outputs go over inputs wherever the table allows it. */
int check_bn(struct apd_shape shape, int n, const struct segments *s, int in_place)
{
    struct layer o = make_layer(shape, n, s);
    int bad = check_moments(&o);

    for (int relu = 0; relu < 2; relu++)
        for (int kind = 0; kind < KINDS; kind++) {
            struct layer l = make_layer(shape, n, s);

            bad += check_moments(&l);
            bad += check_moments_apart(&l);
            bad += check_joint(&l, &o, kind, relu, in_place);
        }
    for (int k = 0; k < s->count; k++)
        bad += check_running(&o, k);
    release();
    return bad;
}

static int same_bytes(const char *what, size_t bytes, const void *a, const void *b)
{
    struct apd_backend *be = backend[TESTED];
    char *x = (char *)floats(bytes / 4 + 1), *y = (char *)floats(bytes / 4 + 1);

    OK(be->ops->download(be, x, a, bytes, &err));
    OK(be->ops->download(be, y, b, bytes, &err));
    if (memcmp(x, y, bytes) == 0)
        return 0;
    print_message("# %s: not what the operations make one by one\n", what);
    return 1;
}

/* [0]: in one; [1]: one by one. */
int check_bn_pool(struct apd_shape shape, int n, const struct segments *s)
{
    struct apd_backend *be = backend[TESTED];
    const struct apd_backend_ops *ops = be->ops;
    struct apd_shape out = apd_maxpool_out(shape);
    struct layer l = make_layer(shape, n, s);
    struct apd_bn bn = bn_of(&l, TESTED);
    size_t small = (size_t)n * ops->image_elems(be, out);
    size_t elems = (size_t)n * apd_shape_elems(out);
    void *y = make_result(shape, n).at[TESTED], *d_pool = make_result(shape, n).at[TESTED];
    void *d_y = make_activation(out, n, random_floats(elems)).at[TESTED];
    void *d_y2 = make_activation(out, n, random_floats(elems)).at[TESTED];
    size_t sums = (size_t)s->count * 2 * channels(TESTED, shape.c) * sizeof(double);
    const struct apd_relu relu = {.y = y};
    void *pooled[2], *which[2], *d_g[2], *d_sums[2];
    int bad;

    for (int k = 0; k < 2; k++) {
        pooled[k] = make_result(out, n).at[TESTED];
        which[k] = make_bytes(small).at[TESTED];
        d_g[k] = make_result(shape, n).at[TESTED];
        d_sums[k] = make_bytes(sums).at[TESTED];
    }
    bad = check_moments(&l);
    OK(ops->bn_pool_forward(be, &bn, pooled[0], which[0], &err));
    OK(ops->bn_forward(be, &bn, NULL, NULL, 1, y, NULL, &err));
    OK(ops->maxpool_forward(be, shape, n, y, pooled[1], which[1], &err));
    bad += same_bytes("bn_pool_forward", small * be->act_bytes, pooled[0], pooled[1]);
    bad += same_bytes("bn_pool_forward which", small, which[0], which[1]);

    OK(ops->bn_pool_backward_sums(be, &bn, d_y, d_y2, which[0], d_g[0], d_sums[0], &err));
    OK(ops->add_activations(be, small, d_y2, d_y, &err));
    OK(ops->maxpool_backward(be, shape, n, d_y, which[1], d_pool, &err));
    OK(ops->bn_backward_sums(be, &bn, NULL, &relu, d_pool, NULL, d_g[1], d_sums[1], NULL, &err));
    bad += same_bytes("bn_pool_backward_sums d_g",
                      (size_t)n * ops->image_elems(be, shape) * be->act_bytes, d_g[0], d_g[1]);
    bad += same_bytes("bn_pool_backward_sums", sums, d_sums[0], d_sums[1]);
    release();
    return bad;
}

static const struct apd_backend_ops *right_ops;

/* ReLU left out where something is added. */
static enum apd_code wrong_bn_forward(struct apd_backend *be, const struct apd_bn *bn,
                                      const struct apd_bn *other, const void *add, int relu,
                                      void *y, uint8_t *mask, struct apd_err *err)
{
    return right_ops->bn_forward(be, bn, other, add, relu && add == NULL, y, mask, err);
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
