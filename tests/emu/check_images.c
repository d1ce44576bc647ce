/* Images and pooling. What is only rounded once per step has to be the reference backend's bits. */
#include "check.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct apd_backend *reference;

static struct apd_backend *ref(void)
{
    struct apd_err err = {0};

    if (reference == NULL)
        assert_int_equal(apd_backend_ref(&reference, &err), APD_OK);
    return reference;
}

static void done_with_reference(void)
{
    if (reference != NULL)
        reference->ops->destroy(reference);
    reference = NULL;
}

#define REF_OK(call)                                                                               \
    do {                                                                                           \
        struct apd_err err = {0};                                                                  \
        assert_int_equal((call), APD_OK);                                                          \
    } while (0)

/* ---- bytes in, attack ---- */

static void check_input_pack(const void *argument)
{
    size_t pixels = *(const size_t *)argument;
    enum { IMAGES = 3 };
    size_t n = IMAGES * pixels;
    uint8_t *bytes = memory(n);
    uint64_t *sample = memory(IMAGES * sizeof *sample);
    uint32_t *epoch = memory(IMAGES * sizeof *epoch);
    struct apd_noise noise = {sample, epoch, UINT64_C(0x123456789abcdef), APD_RNG_NOISE, 4 / 127.5};
    float *x = floats(n), *noisy = floats(n), *want_x = floats(n), *want_noisy = floats(n);

    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i < 256 ? i : random_word());
    for (int i = 0; i < IMAGES; i++) {
        sample[i] = (uint64_t)random_word() << 32 | random_word();
        epoch[i] = random_word() & 0xFFFFFF;
    }
    for (int with = 0; with < 2; with++) {
        REF_OK(ref()->ops->input_pack(ref(), IMAGES, pixels, bytes, with ? &noise : NULL, want_x,
                                      want_noisy, &err));
        OK(apd_cuda_input_pack(IMAGES, pixels, bytes, with ? sample : NULL, epoch, noise.seed,
                               noise.purpose, noise.range, x, noisy, NULL));
        assert_memory_equal(x, want_x, n * sizeof *x);
        assert_memory_equal(noisy, want_noisy, n * sizeof *x);
    }
    memset(x, 0xff, n * sizeof *x);
    OK(apd_cuda_input_pack(IMAGES, pixels, bytes, sample, epoch, 1, 1, 1, x, NULL, NULL));
    assert_memory_equal(x, want_x, n * sizeof *x);
    record(noisy, n * sizeof *x);
}

void test_input_pack(void **state)
{
    static const size_t pixels[] = {1, 3, 4, 147, 300, 2352};

    (void)state;
    for (size_t k = 0; k < sizeof pixels / sizeof *pixels; k++)
        if (!few() || pixels[k] == 147)
            in_every_order(check_input_pack, &pixels[k]);
    OK(apd_cuda_input_pack(0, 4, NULL, NULL, NULL, 1, 1, 1, NULL, NULL, NULL));
    done_with_reference();
}

struct attack_case {
    int n;
    size_t pixels;
    double step;
    enum { IN_PLACE, APART, TO_SLOTS } where;
};

static void check_attack(const void *argument)
{
    const struct attack_case *k = argument;
    size_t elems = (size_t)k->n * k->pixels;
    float *array[4], *want = floats(elems), *next;
    int32_t slot[8];

    for (int a = 0; a < 4; a++)
        array[a] = random_floats(elems);
    for (size_t i = 0; i < elems; i++) {
        array[1][i] = array[0][i] + array[1][i] * 0.05f;
        array[2][i] = i % 7 == 0 ? 0 : i % 7 == 1 ? -0.0f : i % 7 == 2 ? NAN : array[2][i];
        if (i % 11 == 0)
            array[0][i] = i % 2 ? 1 : -1;
    }
    for (int i = 0; i < k->n; i++)
        slot[i] = (i + 2) % k->n;
    next = k->where == IN_PLACE ? array[1] : array[3];
    REF_OK(ref()->ops->attack_step(ref(), k->n, k->pixels, array[0], array[1], array[2], k->step,
                                   0.03, k->where == TO_SLOTS ? slot : NULL, want, &err));
    OK(apd_cuda_attack_step(k->n, k->pixels, array[0], array[1], array[2], k->step, 0.03,
                            k->where == TO_SLOTS ? slot : NULL, next, NULL));
    assert_memory_equal(next, want, elems * sizeof *want);
    record(want, elems * sizeof *want);
}

void test_attack_step(void **state)
{
    static const struct attack_case cases[] = {
        {0, 12, 0.01, APART},    {1, 1, 0.01, APART},      {2, 1000, 0.01, TO_SLOTS},
        {3, 1003, -0.02, APART}, {5, 7, 0.01, TO_SLOTS},   {2, 1, 0.01, IN_PLACE},
        {1, 4099, -0.01, APART}, {8, 784, 0.01, TO_SLOTS}, {3, 1200, -0.01, IN_PLACE}};

    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        in_every_order(check_attack, &cases[k]);
    done_with_reference();
}

/* ---- mixing, rows ---- */

struct mix_case {
    struct apd_shape shape;
    struct apd_mix mix;
};

static void check_mix(const void *argument)
{
    const struct mix_case *k = argument;
    enum { IMAGES = 4 };
    int32_t *partner = memory(IMAGES * sizeof *partner);
    size_t n = IMAGES * apd_shape_elems(k->shape);
    float *src = random_floats(n), *dst = floats(n), *want = floats(n);
    struct apd_mix mix = k->mix;

    for (int i = 0; i < IMAGES; i++)
        partner[i] = (i + 3) % IMAGES;
    mix.partner = partner;
    REF_OK(ref()->ops->mix_images(ref(), IMAGES, k->shape, src, &mix, want, &err));
    OK(apd_cuda_mix_images(IMAGES, k->shape, src, &mix, partner, dst, NULL));
    assert_memory_equal(dst, want, n * sizeof *dst);
    record(dst, n * sizeof *dst);
}

void test_mix_images(void **state)
{
    static const struct mix_case cases[] = {
        {{3, 4, 4}, {.share = 0.3}},
        {{3, 5, 7}, {.share = 0.7}},
        {{3, 8, 8}, {.is_box = 1, .top = 1, .bottom = 6, .left = 3, .right = 8}},
        {{3, 5, 7}, {.is_box = 1, .top = 0, .bottom = 5, .left = 0, .right = 7}},
        {{1, 9, 9}, {.is_box = 1, .top = 4, .bottom = 4, .left = 2, .right = 2}}};

    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        in_every_order(check_mix, &cases[k]);
    OK(apd_cuda_mix_images(0, cases[0].shape, NULL, &cases[0].mix, NULL, NULL, NULL));
    done_with_reference();
}

static void check_gather(const void *argument)
{
    size_t bytes = *(const size_t *)argument;
    enum { FROM = 9, ROWS = 6 };
    uint8_t *src = memory(FROM * bytes), *dst = memory(ROWS * bytes);
    int32_t *index = memory(ROWS * sizeof *index);

    for (size_t i = 0; i < FROM * bytes; i++)
        src[i] = (uint8_t)random_word();
    for (int i = 0; i < ROWS; i++)
        index[i] = (int32_t)(random_word() % FROM);
    OK(apd_cuda_rows_gather(ROWS, bytes, src, index, dst, NULL));
    for (int i = 0; i < ROWS; i++)
        assert_memory_equal(dst + (size_t)i * bytes, src + (size_t)index[i] * bytes, bytes);
    record(dst, ROWS * bytes);
}

void test_rows_gather(void **state)
{
    static const size_t bytes[] = {1, 3, 4, 20, 48, 588, 4800};

    (void)state;
    for (size_t k = 0; k < sizeof bytes / sizeof *bytes; k++)
        in_every_order(check_gather, &bytes[k]);
}

/* ---- activations ---- */

struct act_case {
    enum apd_cuda_type type;
    struct apd_shape shape;
    int n;
};

static void check_image_activation(const void *argument)
{
    const struct act_case *k = argument;
    int plane = k->shape.h * k->shape.w;
    float *image = random_floats((size_t)k->n * apd_shape_elems(k->shape)), *back;
    void *act = garbage_activation(k->type, k->shape, k->n), *one = memory(16);

    back = floats((size_t)k->n * apd_shape_elems(k->shape));
    OK(apd_cuda_image_to_activation(k->type, k->n, k->shape, image, act, NULL));
    OK(apd_cuda_activation_to_image(k->type, k->n, k->shape, act, back, NULL));
    expect_zero_padding(k->type, k->shape, k->n, act);
    for (int i = 0; i < k->n; i++)
        for (int c = 0; c < k->shape.c; c++)
            for (int p = 0; p < plane; p++) {
                size_t at =
                    ((size_t)i * (size_t)k->shape.c + (size_t)c) * (size_t)plane + (size_t)p;

                put(k->type, one, 0, image[at]);
                assert_true(get(k->type, act, place(k->shape, i, p, c)) == get(k->type, one, 0));
                assert_true(back[at] == get(k->type, one, 0));
            }
    record(act, activation_elems(k->shape, k->n) * elem_bytes(k->type));
}

static void for_shapes(void (*check)(const void *))
{
    static const struct apd_shape shapes[] = {{1, 1, 1},  {3, 7, 5},  {8, 6, 6},
                                              {10, 9, 4}, {64, 5, 5}, {200, 3, 2}};

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int type = 0; type < APD_CUDA_TYPES; type++) {
            struct act_case k = {(enum apd_cuda_type)type, shapes[s], 3};

            if (!few() || s == 1 || s == 4)
                in_every_order(check, &k);
        }
}

void test_image_activation(void **state)
{
    (void)state;
    for_shapes(check_image_activation);
}

/* ---- pooling ---- */

/* The winner's place and its value: the first in reading order, NaN over numbers. */
static int winner(const struct act_case *k, const void *src, int i, int y, int x, int c)
{
    double best = 0;
    int place_of_best = -1;

    for (int m = 0; m < 9; m++) {
        int sy = 2 * y - 1 + m / 3, sx = 2 * x - 1 + m % 3;
        double v;

        if (sy < 0 || sy >= k->shape.h || sx < 0 || sx >= k->shape.w)
            continue;
        v = get(k->type, src, place(k->shape, i, sy * k->shape.w + sx, c));
        if (place_of_best < 0 || v > best || isnan(v)) {
            best = v;
            place_of_best = m;
        }
    }
    return place_of_best;
}

static void check_maxpool(const void *argument)
{
    const struct act_case *k = argument;
    struct apd_shape out = apd_maxpool_out(k->shape);
    size_t in_elems = activation_elems(k->shape, k->n), out_elems = activation_elems(out, k->n);
    void *src = random_activation(k->type, k->shape, k->n, 0, 1);
    void *dst = garbage_activation(k->type, out, k->n);
    void *d_dst = random_activation(k->type, out, k->n, 0, 1);
    void *d_src = garbage_activation(k->type, k->shape, k->n);
    uint8_t *which = memory(out_elems);
    double *want = doubles(in_elems), *size = doubles(in_elems);

    for (size_t i = 0; i < in_elems; i += 3) /* ties, signs of zero, NaN */
        if (i % (size_t)rounded_up(k->shape.c) < (size_t)k->shape.c)
            put(k->type, src, i, i % 2 ? -0.0 : i % 21 == 0 ? NAN : 0.5);
    OK(apd_cuda_maxpool_forward(k->type, k->shape, k->n, src, dst, which, NULL));
    OK(apd_cuda_maxpool_backward(k->type, k->shape, k->n, d_dst, which, d_src, NULL));
    for (int i = 0; i < k->n; i++)
        for (int p = 0; p < out.h * out.w; p++)
            for (int c = 0; c < k->shape.c; c++) {
                int y = p / out.w, x = p % out.w, m = winner(k, src, i, y, x, c);
                size_t to = place(out, i, p, c);
                size_t from =
                    place(k->shape, i, (2 * y - 1 + m / 3) * k->shape.w + 2 * x - 1 + m % 3, c);

                assert_int_equal(which[to], m);
                expect_near("maximum", get(k->type, dst, to), get(k->type, src, from), 0);
                want[from] += get(k->type, d_dst, to);
                size[from] += fabs(get(k->type, d_dst, to));
            }
    for (size_t e = 0; e < in_elems; e++)
        expect_elem("d_src", k->type, get(k->type, d_src, e), want[e], size[e]);
    expect_zero_padding(k->type, out, k->n, dst);
    record(dst, out_elems * elem_bytes(k->type));
    record(which, out_elems);
    record(d_src, in_elems * elem_bytes(k->type));
}

void test_maxpool(void **state)
{
    (void)state;
    for_shapes(check_maxpool);
}

static void check_avgpool(const void *argument)
{
    const struct act_case *k = argument;
    int pixels = k->shape.h * k->shape.w, c = k->shape.c;
    void *src = random_activation(k->type, k->shape, k->n, 0, 1);
    void *d_src = garbage_activation(k->type, k->shape, k->n);
    float *dst = floats((size_t)(k->n * c)), *d_dst = random_floats((size_t)(k->n * c));

    OK(apd_cuda_avgpool_forward(k->type, k->shape, k->n, src, dst, NULL));
    OK(apd_cuda_avgpool_backward(k->type, k->shape, k->n, d_dst, d_src, NULL));
    for (int i = 0; i < k->n; i++)
        for (int ch = 0; ch < c; ch++) {
            double sum = 0, gradient = d_dst[i * c + ch] / (double)pixels;

            for (int p = 0; p < pixels; p++) {
                sum += get(k->type, src, place(k->shape, i, p, ch));
                expect_elem("d_src", k->type, get(k->type, d_src, place(k->shape, i, p, ch)),
                            gradient, fabs(gradient));
            }
            expect_elem("mean", APD_CUDA_F32, dst[i * c + ch], sum / pixels, 1);
        }
    expect_zero_padding(k->type, k->shape, k->n, d_src);
    record(dst, (size_t)(k->n * c) * sizeof *dst);
}

void test_avgpool(void **state)
{
    (void)state;
    for_shapes(check_avgpool);
}
