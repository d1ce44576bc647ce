/* Batch norm's kernels that do several steps in one: two layers at once. What check_bn.c has found
 * right of the single steps is the reference, bit for bit; only a sum that used to be rounded in
 * between is compared with double. Segments leave images out at both ends, which have to stay as
 * they are. */
#include "check_bn.h"

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
