/* Batch norm's kernels that do several steps in one: two layers at once, and the max pool with it.
 * What check_bn.c and check_images.c have found right of the single steps is the reference, bit for
 * bit; only a sum that used to be rounded in between is compared with double.
 *
 * Values are chosen to hurt: NaN, ties, and y so small that storing it makes zero of it. Segments
 * leave images out at both ends, which have to stay as they are. */
#include "check_bn.h"

#include <math.h>
#include <string.h>

static size_t tensor_bytes(const struct bn_case *k)
{
    return activation_elems(k->shape, k->n) * elem_bytes(k->type);
}

static size_t sums_bytes(const struct layer *l)
{
    return (size_t)l->k->seg.count * 2 * (size_t)l->wide * sizeof(double);
}

static struct layer make_with_moments(const struct bn_case *k)
{
    struct layer l = make_layer(k);

    EACH_CHANNEL(&l, s, c)
    {
        float *m = l.moments + (size_t)s * 2 * (size_t)l.wide;

        m[c] = (float)random_unit();
        m[l.wide + c] = (float)(1.5 + random_unit());
    }
    return l;
}

/* Every third value one of a few. */
static void put_ties(const struct bn_case *k, void *p, int nans)
{
    for (int i = 0; i < k->n * k->shape.h * k->shape.w; i++)
        for (int c = i % 3; c < k->shape.c; c += 3)
            put(k->type, p, place(k->shape, 0, i, c), nans && i % 21 == 0 ? NAN : 0.5 * (i % 2));
}

/* Images outside of all segments still hold the bytes they were filled with. */
static void expect_untouched(const struct bn_case *k, const void *p, size_t image_bytes)
{
    const struct apd_segment *last = &k->seg.at[k->seg.count - 1];
    const uint8_t *bytes = p;

    for (size_t b = 0; b < (size_t)k->n * image_bytes; b++)
        if (b < (size_t)k->seg.at[0].first * image_bytes ||
            b >= (size_t)(last->first + last->count) * image_bytes)
            assert_int_equal(bytes[b], 0xff);
}

static void *garbage_bytes(size_t bytes)
{
    return memset(memory(bytes), 0xff, bytes);
}

/* ---- two layers ---- */

static void check_two_forward(struct layer *l, struct layer *m)
{
    const struct bn_case *k = l->k;
    struct apd_cuda_bn bn = bn_of(l), other = bn_of(m);
    size_t image = activation_elems(k->shape, 1);

    memset(l->mask, 0xff, (size_t)k->n * image / 8);
    OK(apd_cuda_bn_forward(&bn, &other, NULL, k->relu, l->y, l->mask, NULL));
    expect_mask(l);
    expect_untouched(k, l->y, image * elem_bytes(k->type));
    expect_untouched(k, l->mask, image / 8);
    EACH_CHANNEL(l, s, c)
    {
        const float *a = l->moments + (size_t)s * 2 * (size_t)l->wide;
        const float *b = m->moments + (size_t)s * 2 * (size_t)l->wide;
        int set = k->seg.at[s].set;
        double scale = (double)a[l->wide + c] * l->gamma[set][c];
        double scale2 = (double)b[l->wide + c] * m->gamma[set][c];

        EACH_VALUE(l, s, i, p)
        {
            double want = (at(l, l->x, i, p, c) - a[c]) * scale + l->beta[set][c];

            want += (at(m, m->x, i, p, c) - b[c]) * scale2 + m->beta[set][c];
            expect_elem("y", k->type, at(l, l->y, i, p, c), k->relu && want < 0 ? 0 : want, 8);
        }
    }
    if (k->type == APD_CUDA_F32) { /* where nothing was rounded in between */
        void *y = garbage_bytes(tensor_bytes(k));

        OK(apd_cuda_bn_forward(&other, NULL, NULL, 0, y, NULL, NULL));
        OK(apd_cuda_bn_forward(&bn, NULL, y, k->relu, y, NULL, NULL));
        assert_memory_equal(y, l->y, tensor_bytes(k));
    }
    record(l->y, tensor_bytes(k));
    assert_int_equal(apd_cuda_bn_forward(&bn, &other, l->add, k->relu, l->y, l->mask, NULL),
                     cudaErrorInvalidValue);
}

static void check_two_backward(struct layer *l, struct layer *m)
{
    static const struct apd_cuda_relu none = {APD_CUDA_RELU_NONE, NULL};
    static const struct apd_cuda_relu remade = {APD_CUDA_RELU_REMADE, NULL};
    const struct bn_case *k = l->k;
    const void *d_y2 = k->second ? l->d_y2 : NULL;
    struct apd_cuda_relu relu = {k->relu ? APD_CUDA_RELU_MASK : APD_CUDA_RELU_NONE, l->mask};
    struct apd_cuda_bn bn = bn_of(l), other = bn_of(m);
    size_t bytes = tensor_bytes(k);
    void *d_g = garbage_bytes(bytes), *d_x = memory(bytes), *d_x_other = memory(bytes);
    double *d_sums = memory(sums_bytes(l)), *d_sums_other = memory(sums_bytes(l));

    OK(apd_cuda_bn_backward_sums(&bn, &relu, l->d_y, d_y2, l->d_g, l->d_sums, NULL, NULL,
                                 l->scratch, NULL));
    OK(apd_cuda_bn_backward_sums(&other, &none, l->d_g, NULL, l->d_g, m->d_sums, NULL, NULL,
                                 l->scratch, NULL));
    OK(apd_cuda_bn_backward_sums(&bn, &relu, l->d_y, d_y2, d_g, d_sums, &other, d_sums_other,
                                 l->scratch, NULL));
    assert_memory_equal(d_g, l->d_g, bytes);
    assert_memory_equal(d_sums, l->d_sums, sums_bytes(l));
    assert_memory_equal(d_sums_other, m->d_sums, sums_bytes(l));
    expect_untouched(k, d_g, bytes / (size_t)k->n);
    assert_int_equal(apd_cuda_bn_backward_sums(&bn, &remade, l->d_y, d_y2, d_g, d_sums, &other,
                                               d_sums_other, l->scratch, NULL),
                     cudaErrorInvalidValue);

    OK(apd_cuda_bn_backward_data(&bn, d_g, d_sums, l->count, k->batch_stats, l->d_x, NULL, NULL,
                                 NULL, NULL));
    OK(apd_cuda_bn_backward_data(&other, d_g, d_sums_other, l->count, k->batch_stats, m->d_x, NULL,
                                 NULL, NULL, NULL));
    for (int in_place = 0; in_place < 3; in_place++) { /* not, d_x, d_x_other */
        void *a = in_place == 1 ? d_g : d_x, *b = in_place == 2 ? d_g : d_x_other;

        memcpy(d_g, l->d_g, bytes);
        memset(d_x, 0xff, bytes);
        memset(d_x_other, 0xff, bytes);
        OK(apd_cuda_bn_backward_data(&bn, d_g, d_sums, l->count, k->batch_stats, a, &other,
                                     d_sums_other, b, NULL));
        assert_memory_equal(a, l->d_x, bytes);
        assert_memory_equal(b, m->d_x, bytes);
    }
    record(l->d_x, bytes);
    record(m->d_x, bytes);
}

static void check_two(const void *argument)
{
    struct layer l = make_with_moments(argument), m = make_with_moments(argument);

    check_two_forward(&l, &m);
    check_two_backward(&l, &m);
}

/* Of 7 images the first and the last are in no segment. */
static struct apd_cuda_segments inner_segments(int which)
{
    struct apd_cuda_segments seg = segments_of(which, 5);

    for (int s = 0; s < seg.count; s++)
        seg.at[s].first++;
    return seg;
}

void test_bn_two(void **state)
{
    static const struct apd_shape shapes[] = {{3, 7, 5}, {64, 5, 3}, {264, 1, 3}};
    int tried = 0;

    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int type = 0; type < APD_CUDA_TYPES; type++)
            for (int which = 0; which < 4; which++, tried++) {
                struct bn_case k = {.type = (enum apd_cuda_type)type,
                                    .shape = shapes[s],
                                    .n = 7,
                                    .seg = inner_segments(which),
                                    .relu = tried % 4 != 1,
                                    .second = tried % 3 == 0,
                                    .batch_stats = tried % 5 != 0,
                                    .deviation = 1};

                if (!few() || (which == 3 && s == 1))
                    in_every_order(check_two, &k);
            }
}

/* As many parts of sums as there can be. */
void test_bn_scratch(void **state)
{
    struct bn_case k = {.type = APD_CUDA_F16,
                        .shape = {256, 32, 32},
                        .n = 1,
                        .seg = {.count = APD_MAX_SEGMENTS},
                        .relu = 1,
                        .batch_stats = 1,
                        .deviation = 1};

    (void)state;
    if (few())
        return;
    for (int s = 0; s < APD_MAX_SEGMENTS; s++)
        k.seg.at[s] = (struct apd_segment){s > 0, s == 0, APD_BN_MAIN};
    check_two(&k);
    release();
}

/* ---- the max pool ---- */

/* Equal bits; NaN is NaN. */
static void expect_same(enum apd_cuda_type type, const void *got, const void *want, size_t elems)
{
    size_t bytes = elem_bytes(type);

    for (size_t e = 0; e < elems; e++)
        if (!isnan(get(type, want, e)) || !isnan(get(type, got, e)))
            assert_memory_equal((const char *)got + e * bytes, (const char *)want + e * bytes,
                                bytes);
}

/* Only images of segments: [*from, *end) elements. */
static void covered(const struct bn_case *k, struct apd_shape shape, size_t *from, size_t *end)
{
    const struct apd_segment *last = &k->seg.at[k->seg.count - 1];

    *from = activation_elems(shape, k->seg.at[0].first);
    *end = activation_elems(shape, last->first + last->count);
}

static const void *from_elem(enum apd_cuda_type type, const void *p, size_t elem)
{
    return (const char *)p + elem * elem_bytes(type);
}

static void check_bn_pool(const void *argument)
{
    const struct bn_case *k = argument;
    struct apd_shape out = apd_maxpool_out(k->shape);
    struct layer l = make_with_moments(k);
    struct apd_cuda_bn bn = bn_of(&l);
    struct apd_cuda_relu relu = {APD_CUDA_RELU_MASK, l.mask};
    size_t elems = activation_elems(out, k->n), bytes = elems * elem_bytes(k->type), from, end;
    void *pooled = garbage_bytes(bytes), *want = garbage_bytes(bytes), *got = garbage_bytes(bytes);
    void *d_y = random_activation(k->type, out, k->n, 0, 1);
    void *d_y2 = random_activation(k->type, out, k->n, 0, 1);
    void *d_src = memory(tensor_bytes(k)), *d_g = garbage_bytes(tensor_bytes(k));
    double *d_sums = memory(sums_bytes(&l));
    uint8_t *which = garbage_bytes(elems), *want_which = garbage_bytes(elems);

    put_ties(k, l.x, k->add);
    OK(apd_cuda_bn_forward(&bn, NULL, NULL, 1, l.y, l.mask, NULL));
    expect_mask(&l);
    OK(apd_cuda_maxpool_forward(k->type, k->shape, k->n, l.y, want, want_which, NULL));
    OK(apd_cuda_bn_pool_forward(&bn, pooled, which, NULL));
    covered(k, out, &from, &end);
    expect_same(k->type, from_elem(k->type, pooled, from), from_elem(k->type, want, from),
                end - from);
    assert_memory_equal(which + from, want_which + from, end - from);
    expect_untouched(k, pooled, bytes / (size_t)k->n);
    expect_untouched(k, which, elems / (size_t)k->n);
    record(which, elems);

    OK(apd_cuda_bn_pool_backward_sums(&bn, d_y, k->second ? d_y2 : NULL, want_which, d_g, d_sums,
                                      l.scratch, NULL));
    memcpy(got, d_y, bytes);
    if (k->second)
        OK(apd_cuda_add(k->type, elems, d_y2, got, NULL));
    OK(apd_cuda_maxpool_backward(k->type, k->shape, k->n, got, want_which, d_src, NULL));
    OK(apd_cuda_bn_backward_sums(&bn, &relu, d_src, NULL, l.d_g, l.d_sums, NULL, NULL, l.scratch,
                                 NULL));
    covered(k, k->shape, &from, &end);
    expect_same(k->type, from_elem(k->type, d_g, from), from_elem(k->type, l.d_g, from),
                end - from);
    for (size_t d = 0; d < sums_bytes(&l) / sizeof *d_sums; d++)
        expect_near("sum", d_sums[d], l.d_sums[d], 0);
    expect_untouched(k, d_g, tensor_bytes(k) / (size_t)k->n);
    record(d_g, tensor_bytes(k));
}

void test_bn_pool(void **state)
{
    static const struct apd_shape shapes[] = {
        {1, 1, 1}, {3, 7, 5}, {10, 9, 4}, {64, 12, 11}, {264, 3, 2}};
    int tried = 0;

    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int type = 0; type < APD_CUDA_TYPES; type++)
            for (int which = 0; which < 4; which++, tried++) {
                struct bn_case k = {.type = (enum apd_cuda_type)type,
                                    .shape = shapes[s],
                                    .n = 7,
                                    .seg = inner_segments(which),
                                    .add = tried % 3 == 0, /* NaNs */
                                    .second = tried % 2,
                                    .deviation = 1};

                if (!few() || (which == 3 && s == 1))
                    in_every_order(check_bn_pool, &k);
            }
}
