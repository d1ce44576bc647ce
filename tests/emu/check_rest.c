/* The classifier's rows, the loss, and flat arrays. */
#include "check.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- rows ---- */

struct rows_case {
    enum apd_cuda_type type;
    int n, c;
};

static void check_rows(const void *argument)
{
    const struct rows_case *k = argument;
    struct apd_shape shape = {k->c, 1, 1};
    size_t elems = (size_t)(k->n * k->c);
    float *src = random_floats(elems), *bias = random_floats((size_t)k->c), *dst = floats(elems);
    void *packed = garbage_activation(k->type, shape, k->n);

    OK(apd_cuda_rows_pack(k->type, k->n, k->c, src, packed, NULL));
    expect_zero_padding(k->type, shape, k->n, packed);
    OK(apd_cuda_rows_unpack(k->type, k->n, k->c, packed, bias, 0, dst, NULL));
    for (int i = 0; i < k->n; i++)
        for (int c = 0; c < k->c; c++) {
            double stored = get(k->type, packed, place(shape, i, 0, c));

            expect_elem("packed", k->type, stored, src[i * k->c + c], 0);
            assert_true(dst[i * k->c + c] == (float)stored + bias[c]);
        }
    OK(apd_cuda_rows_unpack(k->type, k->n, k->c, packed, NULL, 1, dst, NULL));
    for (int i = 0; i < k->n; i++)
        for (int c = 0; c < k->c; c++) {
            float stored = (float)get(k->type, packed, place(shape, i, 0, c));

            assert_true(dst[i * k->c + c] == stored + bias[c] + stored);
        }
    record(dst, elems * sizeof *dst);
}

void test_rows(void **state)
{
    static const int widths[] = {1, 3, 8, 10, 64, 200, 1000};

    (void)state;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int type = 0; type < APD_CUDA_TYPES; type++) {
            struct rows_case k = {(enum apd_cuda_type)type, 5, widths[w]};

            in_every_order(check_rows, &k);
        }
}

static void check_column_sums(const void *argument)
{
    const struct rows_case *k = argument;
    size_t width = (size_t)k->c;
    float *rows = random_floats((size_t)k->n * width), *sum = random_floats(width);
    float *old = floats(width);

    memcpy(old, sum, width * sizeof *sum);
    OK(apd_cuda_column_sums(k->n, k->c, rows, sum, memory(apd_cuda_scratch_bytes(k->c, 1)), NULL));
    for (size_t c = 0; c < width; c++) {
        double want = old[c];

        for (size_t i = 0; i < (size_t)k->n; i++)
            want += rows[i * width + c];
        expect_elem("column", APD_CUDA_F32, sum[c], want, 0);
    }
    record(sum, width * sizeof *sum);
}

void test_column_sums(void **state)
{
    static const struct rows_case cases[] = {{0, 0, 7},    {0, 1, 1},    {0, 3, 10},   {0, 65, 40},
                                             {0, 500, 33}, {0, 1500, 5}, {0, 20, 1000}};

    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        if (!few() || cases[k].n == 65)
            in_every_order(check_column_sums, &cases[k]);
}

/* ---- loss ---- */

struct loss_case {
    int n, classes, mixed, nans;
    double smoothing;
    struct apd_cuda_segments seg;
};

struct loss_data {
    float *logits, *keep, *weight;
    int32_t *label, *label2;
    double *wide_logits, *wide_keep, *wide_weight, *wide_gradient; /* the same for ref64 */
};

static double *widened(const float *p, size_t n)
{
    double *wide = doubles(n);

    for (size_t i = 0; i < n; i++)
        wide[i] = p[i];
    return wide;
}

static struct loss_data make_loss(const struct loss_case *k)
{
    size_t n = (size_t)k->n, elems = n * (size_t)k->classes;
    struct loss_data d = {.logits = random_floats(elems),
                          .keep = random_floats(n),
                          .weight = random_floats(n),
                          .label = memory(n * sizeof(int32_t)),
                          .label2 = memory(n * sizeof(int32_t))};

    for (size_t i = 0; i < elems; i++) /* ties among them */
        d.logits[i] = i % 5 == 0 ? 1.5f : d.logits[i] * 8;
    for (size_t i = 0; i < n; i++) {
        d.label[i] = (int32_t)(random_word() % (unsigned)k->classes);
        d.label2[i] = i % 3 == 0 ? d.label[i] : (int32_t)(random_word() % (unsigned)k->classes);
        d.keep[i] = fabsf(d.keep[i]);
        d.weight[i] = i % 4 == 3 ? 0 : d.weight[i];
    }
    if (k->nans) {
        d.logits[k->classes - 1] = NAN; /* not in the first lane of a warp */
        d.logits[(size_t)k->classes + (size_t)d.label[1]] = NAN;
        d.logits[2 * (size_t)k->classes] = INFINITY;
    }
    d.wide_logits = widened(d.logits, elems);
    d.wide_keep = widened(d.keep, n);
    d.wide_weight = widened(d.weight, n);
    d.wide_gradient = doubles(elems);
    return d;
}

static void reference_loss(const struct loss_case *k, const struct loss_data *d, double *want)
{
    struct apd_targets targets = {d->label, k->mixed ? d->label2 : NULL, d->wide_keep,
                                  d->wide_weight, k->smoothing};
    struct apd_backend *be = NULL;
    struct apd_err err = {0};

    assert_int_equal(apd_backend_ref64(&be, &err), APD_OK);
    assert_int_equal(be->ops->softmax_ce(be, k->n, k->classes, d->wide_logits, &targets, k->seg.at,
                                         k->seg.count, want, d->wide_gradient, &err),
                     APD_OK);
    be->ops->destroy(be);
}

static void check_softmax(const void *argument)
{
    const struct loss_case *k = argument;
    size_t elems = (size_t)k->n * (size_t)k->classes;
    struct loss_data d = make_loss(k);
    struct apd_targets targets = {d.label, k->mixed ? d.label2 : NULL, d.keep, d.weight,
                                  k->smoothing};
    double *loss = doubles(4 * (size_t)k->seg.count), *again = doubles(4 * (size_t)k->seg.count);
    void *scratch = memory(apd_cuda_scratch_bytes(k->classes, k->seg.count));
    float *gradient = floats(elems);
    double want[4 * APD_LOSS_DOUBLES];

    memset(gradient, 0xff, elems * sizeof *gradient);
    reference_loss(k, &d, want);
    OK(apd_cuda_softmax_ce(k->n, k->classes, d.logits, &targets, &k->seg, loss, gradient, scratch,
                           NULL));
    for (int s = 0; s < k->seg.count; s++) {
        expect_near("ce", loss[4 * s], want[4 * s], 2e-6 * (want[4 * s + 1] + 1) * 8);
        expect_near("images", loss[4 * s + 1], want[4 * s + 1], 0);
        expect_near("top1", loss[4 * s + 2], want[4 * s + 2], 0);
        expect_near("top5", loss[4 * s + 3], want[4 * s + 3], 0);
    }
    for (size_t i = 0; i < elems; i++)
        expect_near("d_logits", gradient[i], d.wide_gradient[i], 1e-6);
    OK(apd_cuda_softmax_ce(k->n, k->classes, d.logits, &targets, &k->seg, again, NULL, scratch,
                           NULL));
    assert_memory_equal(loss, again, 4 * (size_t)k->seg.count * sizeof *loss);
    record(loss, 4 * (size_t)k->seg.count * sizeof *loss);
    record(gradient, elems * sizeof *gradient);
}

void test_softmax(void **state)
{
    static const int widths[] = {2, 10, 33, 200, 1000};

    (void)state;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int variant = 0; variant < 6; variant++) {
            struct loss_case k = {.n = 11,
                                  .classes = widths[w],
                                  .mixed = variant % 2,
                                  .nans = variant == 5,
                                  .smoothing = variant / 2 ? 0.1 : 0,
                                  .seg = {.count = 3, .at = {{0, 4, 0}, {4, 0, 1}, {4, 7, 1}}}};

            if (!few() || (w == 1 && variant == 3))
                in_every_order(check_softmax, &k);
        }
}

/* ---- flat arrays ---- */

struct flat_case {
    enum apd_cuda_type type;
    size_t n, skip, other; /* elements by which all arrays, and one of them, are off 16 bytes */
};

static void check_cast(const struct flat_case *k)
{
    float *src = random_floats(k->n + k->skip) + k->skip, *sum = random_floats(k->n + k->skip);
    void *dst = memory((k->n + k->skip + k->other) * elem_bytes(k->type));
    size_t off = k->skip + k->other, bytes = elem_bytes(k->type);
    float *old = floats(k->n);

    sum += k->skip;
    memcpy(old, sum, k->n * sizeof *old);
    OK(apd_cuda_cast(k->type, k->n, src, (char *)dst + off * bytes, NULL));
    OK(apd_cuda_accumulate(k->type, k->n, (char *)dst + off * bytes, sum, NULL));
    for (size_t i = 0; i < k->n; i++) {
        double stored = get(k->type, dst, off + i);

        expect_elem("cast", k->type, stored, src[i], 0);
        assert_true(sum[i] == old[i] + (float)stored);
    }
    record(sum, k->n * sizeof *sum);
}

static void check_add(const struct flat_case *k)
{
    size_t bytes = elem_bytes(k->type), off = k->skip + k->other;
    void *src = memory((k->n + off) * bytes), *dst = memory((k->n + k->skip) * bytes);
    double *want = doubles(k->n);

    for (size_t i = 0; i < k->n; i++) {
        put(k->type, src, off + i, random_unit());
        put(k->type, dst, k->skip + i, random_unit());
        want[i] = get(k->type, src, off + i) + get(k->type, dst, k->skip + i);
    }
    OK(apd_cuda_add(k->type, k->n, (char *)src + off * bytes, (char *)dst + k->skip * bytes, NULL));
    for (size_t i = 0; i < k->n; i++)
        expect_elem("sum", k->type, get(k->type, dst, k->skip + i), want[i], 0);
    record(dst, (k->n + k->skip) * bytes);
}

static void check_sgd(const struct flat_case *k, int nesterov)
{
    struct apd_sgd sgd = {1.0 / 37, 0.3, 0.9, 1e-2, nesterov};
    float *d_w = random_floats(k->n + k->skip + k->other) + k->skip + k->other;
    float *w = random_floats(k->n + k->skip) + k->skip,
          *m = random_floats(k->n + k->skip) + k->skip;
    double *old_w = doubles(k->n), *old_m = doubles(k->n);
    size_t bytes = elem_bytes(k->type), off = k->skip + k->other;
    float *plain_w = floats(k->n + k->skip) + k->skip, *plain_m = floats(k->n + k->skip) + k->skip;
    char *copy = (char *)memory((k->n + off) * bytes) + off * bytes;
    void *cast = memory(k->n * bytes);

    for (size_t i = 0; i < k->n; i++) {
        old_w[i] = w[i];
        old_m[i] = m[i];
    }
    memcpy(plain_w, w, k->n * sizeof *w);
    memcpy(plain_m, m, k->n * sizeof *m);
    OK(apd_cuda_sgd(k->type, k->n, &sgd, d_w, w, m, copy, NULL));
    OK(apd_cuda_sgd(k->type, k->n, &sgd, d_w, plain_w, plain_m, NULL, NULL));
    assert_memory_equal(w, plain_w, k->n * sizeof *w);
    assert_memory_equal(m, plain_m, k->n * sizeof *m);
    OK(apd_cuda_cast(k->type, k->n, w, cast, NULL));
    assert_memory_equal(copy, cast, k->n * bytes);
    for (size_t i = 0; i < k->n; i++) {
        double g = sgd.grad_scale * d_w[i] + sgd.weight_decay * old_w[i];
        double v = sgd.momentum * old_m[i] + g;

        expect_elem("momentum", APD_CUDA_F32, m[i], v, 1);
        expect_elem("weight", APD_CUDA_F32, w[i],
                    old_w[i] - sgd.lr * (nesterov ? g + sgd.momentum * v : v), 1);
    }
    record(w, k->n * sizeof *w);
}

static void check_average(const struct flat_case *k)
{
    float *x = random_floats(k->n + k->skip) + k->skip,
          *a = random_floats(k->n + k->skip) + k->skip;
    double *from = doubles(k->n), *to = doubles(k->n), *old = doubles(k->n);

    for (size_t i = 0; i < k->n; i++) {
        old[i] = a[i];
        from[i] = random_unit();
        to[i] = random_unit();
    }
    OK(apd_cuda_average(k->n, 0.9999, x, a, NULL));
    for (size_t i = 0; i < k->n; i++)
        assert_true(a[i] == (float)(0.9999 * old[i] + (1 - 0.9999) * x[i]));
    memcpy(old, to, k->n * sizeof *old);
    OK(apd_cuda_add_doubles(k->n, from, to, NULL));
    for (size_t i = 0; i < k->n; i++)
        assert_true(to[i] == old[i] + from[i]);
    record(a, k->n * sizeof *a);
}

static void check_flat(const void *argument)
{
    const struct flat_case *k = argument;

    check_cast(k);
    check_add(k);
    check_sgd(k, 0);
    check_sgd(k, 1);
    check_average(k);
}

void test_flat(void **state)
{
    static const size_t lengths[] = {0, 1, 7, 8, 1000, 5003};

    (void)state;
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (int type = 0; type < APD_CUDA_TYPES; type++)
            for (size_t skip = 0; skip < 4; skip++) {
                struct flat_case k = {(enum apd_cuda_type)type, lengths[l], skip, skip == 2};

                if (!few() || (lengths[l] == 1000 && skip == 1))
                    in_every_order(check_flat, &k);
            }
}

static void check_nonfinite(const void *argument)
{
    const struct flat_case *k = argument;
    static const float bad_values[] = {NAN, INFINITY, -INFINITY};
    float *x = random_floats(k->n + k->skip) + k->skip;
    double *bad = doubles(1);
    void *scratch = memory(apd_cuda_scratch_bytes(1, 1));

    if (k->n > 2) {
        x[0] = FLT_MAX;
        x[1] = -FLT_MAX;
        x[2] = -0.0f;
    }
    *bad = 7;
    OK(apd_cuda_nonfinite(k->n, x, bad, scratch, NULL));
    assert_true(*bad == 0);
    for (size_t at = 0; at < k->n; at += 1 + k->n / 5) {
        float good = x[at];

        x[at] = bad_values[at % 3];
        OK(apd_cuda_nonfinite(k->n, x, bad, scratch, NULL));
        assert_true(*bad == 1);
        x[at] = good;
    }
}

void test_nonfinite(void **state)
{
    static const size_t lengths[] = {0, 1, 5, 1023, 9001};

    (void)state;
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (size_t skip = 0; skip < 4; skip++) {
            struct flat_case k = {APD_CUDA_F32, lengths[l], skip, 0};

            if (!few() || (lengths[l] == 1023 && skip == 1))
                in_every_order(check_nonfinite, &k);
        }
}
