/* Pooling, classifier, loss, images, flat arrays. */
#include "harness.h"

#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

int check_maxpool(struct apd_shape shape, int n)
{
    struct apd_shape out = apd_maxpool_out(shape);
    size_t elems = (size_t)n * apd_shape_elems(shape);
    float *values = random_floats(elems);
    struct both src, dst, d_dst, d_src, which;
    int bad;

    for (size_t i = 0; i < elems; i++)
        values[i] = (float)(int)(values[i] * 4); /* many equals */
    src = make_activation(shape, n, values);
    dst = make_result(out, n);
    d_dst = make_activation(out, n, random_floats((size_t)n * apd_shape_elems(out)));
    d_src = make_result(shape, n);
    which = make_bytes((size_t)n * backend[TESTED]->ops->image_elems(backend[TESTED], out));
    ON_BOTH(ops->maxpool_forward(be, shape, n, src.at[b], dst.at[b], which.at[b], &err));
    bad = compare_activation("maxpool_forward", out, n, dst, 0);
    ON_BOTH(ops->maxpool_backward(be, shape, n, d_dst.at[b], which.at[b], d_src.at[b], &err));
    bad += compare_activation("maxpool_backward", shape, n, d_src, 1e-6);
    release();
    return bad;
}

int check_avgpool(struct apd_shape shape, int n)
{
    size_t elems = (size_t)n * apd_shape_elems(shape), rows = (size_t)n * (size_t)shape.c;
    struct both src = make_activation(shape, n, random_floats(elems));
    struct both dst = make_plain_result(rows), d_dst = make_plain(rows, random_floats(rows));
    struct both d_src = make_result(shape, n);
    int bad;

    ON_BOTH(ops->avgpool_forward(be, shape, n, src.at[b], dst.at[b], &err));
    bad = compare_plain("avgpool_forward", rows, dst, 1e-5);
    ON_BOTH(ops->avgpool_backward(be, shape, n, d_dst.at[b], d_src.at[b], &err));
    bad += compare_activation("avgpool_backward", shape, n, d_src, 1e-9);
    release();
    return bad;
}

int check_linear(int n, int in, int out)
{
    size_t xs = (size_t)n * (size_t)in, ws = (size_t)in * (size_t)out, ys = (size_t)n * (size_t)out;
    struct both x = make_plain(xs, random_floats(xs)), w = make_plain(ws, random_floats(ws));
    struct both bias = make_plain((size_t)out, random_floats((size_t)out));
    struct both y = make_plain_result(ys), d_y = make_plain(ys, random_floats(ys));
    struct both d_x = make_plain_result(xs), d_w = make_plain_result(ws);
    struct both d_b = make_plain_result((size_t)out);
    int bad;

    ON_BOTH(ops->weights_changed(be, w.at[b], ws, &err));
    ON_BOTH(ops->linear_forward(be, n, in, out, x.at[b], w.at[b], bias.at[b], y.at[b], &err));
    bad = compare_plain("linear_forward", ys, y, 1e-5);
    ON_BOTH(ops->linear_backward_data(be, n, in, out, d_y.at[b], w.at[b], d_x.at[b], &err));
    bad += compare_plain("linear_backward_data", xs, d_x, 1e-5);
    ON_BOTH(ops->linear_backward_weights(be, n, in, out, x.at[b], d_y.at[b], d_w.at[b], d_b.at[b],
                                         &err));
    bad += compare_plain("linear_backward_weights d_w", ws, d_w, 1e-5);
    bad += compare_plain("linear_backward_weights d_b", (size_t)out, d_b, 1e-5);
    release();
    return bad;
}

static int compare_losses(int segments, double loss[BOTH][4 * APD_LOSS_DOUBLES])
{
    int bad = 0;

    for (int s = 0; s < segments * APD_LOSS_DOUBLES; s += APD_LOSS_DOUBLES) {
        float expected = (float)loss[REF][s], found = (float)loss[TESTED][s];

        bad += compare("loss", &expected, &found, 1, 1, 1e-5);
        for (int count = 1; count < APD_LOSS_DOUBLES; count++)
            bad += loss[REF][s + count] != loss[TESTED][s + count];
    }
    return bad;
}

int check_softmax(int n, int classes, int mixed, double smoothing)
{
    size_t elems = (size_t)n * (size_t)classes;
    float *z = random_floats(elems), *keep = random_floats((size_t)n);
    float *weight = random_floats((size_t)n);
    struct both logits, keeps, weights, label, label2, result, d_logits = make_plain_result(elems);
    int32_t *labels = (int32_t *)floats(2 * (size_t)n);
    struct segments lists[4];
    int bad = 0;

    for (size_t i = 0; i < elems; i++)
        z[i] *= 20;
    for (int i = 0; i < 2 * n; i++)
        labels[i] = (int32_t)random_below((uint32_t)classes);
    for (int i = 0; i < n; i++) {
        keep[i] = (keep[i] + 1) / 2;
        weight[i] = random_below(4) == 0 ? 0 : weight[i];
    }
    logits = make_plain(elems, z);
    keeps = make_plain((size_t)n, keep);
    weights = make_plain((size_t)n, weight);
    result = make_bytes(4 * APD_LOSS_DOUBLES * sizeof(double));
    label = make_bytes((size_t)n * sizeof *labels);
    label2 = make_bytes((size_t)n * sizeof *labels);
    ON_BOTH(ops->upload(be, label.at[b], labels, (size_t)n * sizeof *labels, &err));
    ON_BOTH(ops->upload(be, label2.at[b], labels + n, (size_t)n * sizeof *labels, &err));
    for (int k = segment_lists(n, lists) - 1; k >= 0; k--) {
        double loss[BOTH][4 * APD_LOSS_DOUBLES], again[4 * APD_LOSS_DOUBLES];
        size_t bytes = (size_t)lists[k].count * APD_LOSS_DOUBLES * sizeof(double);

        for (int b = 0; b < BOTH; b++) {
            struct apd_targets t = {
                .label = label.at[b],
                .label2 = mixed ? label2.at[b] : NULL,
                .keep = mixed ? keeps.at[b] : NULL,
                .weight = weights.at[b],
                .smoothing = smoothing,
            };
            struct apd_backend *be = backend[b];

            OK(be->ops->softmax_ce(be, n, classes, logits.at[b], &t, lists[k].seg, lists[k].count,
                                   result.at[b], d_logits.at[b], &err));
            OK(be->ops->download(be, loss[b], result.at[b], bytes, &err));
            OK(be->ops->softmax_ce(be, n, classes, logits.at[b], &t, lists[k].seg, lists[k].count,
                                   result.at[b], NULL, &err));
            OK(be->ops->download(be, again, result.at[b], bytes, &err));
            bad += memcmp(loss[b], again, bytes) != 0;
        }
        bad += compare_losses(lists[k].count, loss);
        bad += compare_plain("softmax_ce d_logits", elems, d_logits, 1e-5);
    }
    release();
    return bad;
}

int check_images(int n, size_t pixels)
{
    size_t elems = (size_t)n * pixels;
    uint8_t *bytes = (uint8_t *)floats(elems / 4 + 1);
    uint64_t sample[16];
    uint32_t epoch[16];
    int32_t index[16], slot[16];
    struct apd_noise noise = {sample, epoch, 0x123456789ABCDEFu, APD_RNG_NOISE, 0.05};
    struct both x = make_plain_result(elems), noisy = make_plain_result(elems);
    const void *staged[BOTH];
    struct both d_x, next = make_plain_result(elems), rows = make_plain_result(elems);
    float *gradient = random_floats(elems);
    int bad;

    assert_true(n <= 16);
    for (size_t i = 0; i < elems; i++) {
        bytes[i] = (uint8_t)random_below(256);
        if (random_below(5) == 0)
            gradient[i] = 0;
    }
    for (int i = 0; i < n; i++) {
        sample[i] = (uint64_t)random_below(1u << 30) << 20 | random_below(1u << 20);
        epoch[i] = random_below(1u << 24);
        index[i] = (int32_t)random_below((uint32_t)n);
        slot[i] = (int32_t)((i + n / 2) % n);
    }
    d_x = make_plain(elems, gradient);
    ON_BOTH(ops->stage(be, bytes, elems, &staged[b], &err));
    ON_BOTH(ops->input_pack(be, n, pixels, staged[b], NULL, x.at[b], noisy.at[b], &err));
    bad = compare_plain("input_pack, no noise", elems, noisy, 0);
    ON_BOTH(ops->input_pack(be, n, pixels, staged[b], &noise, x.at[b], noisy.at[b], &err));
    bad += compare_plain("input_pack", elems, x, 0);
    bad += compare_plain("input_pack, noise", elems, noisy, 0);
    ON_BOTH(ops->input_pack(be, n, pixels, staged[b], NULL, x.at[b], NULL, &err));
    for (int down = 0; down < 2; down++) {
        ON_BOTH(ops->attack_step(be, n, pixels, x.at[b], noisy.at[b], d_x.at[b],
                                 down ? -0.03 : 0.03, 0.04, down ? slot : NULL, next.at[b], &err));
        bad += compare_plain("attack_step", elems, next, 0);
    }
    ON_BOTH(ops->attack_step(be, n, pixels, x.at[b], noisy.at[b], d_x.at[b], 0.03, 0.04, NULL,
                             noisy.at[b], &err));
    bad += compare_plain("attack_step in place", elems, noisy, 0);
    ON_BOTH(ops->rows_gather(be, n, pixels, x.at[b], index, rows.at[b], &err));
    bad += compare_plain("rows_gather", elems, rows, 0);
    release();
    return bad;
}

int check_mix(int n, struct apd_shape shape)
{
    size_t elems = (size_t)n * apd_shape_elems(shape);
    struct both src = make_plain(elems, random_floats(elems)), dst = make_plain_result(elems);
    int32_t partner[16];
    struct apd_mix mix = {.partner = partner, .share = 0.3};
    int bad;

    assert_true(n <= 16);
    for (int i = 0; i < n; i++)
        partner[i] = (int32_t)random_below((uint32_t)n);
    ON_BOTH(ops->mix_images(be, n, shape, src.at[b], &mix, dst.at[b], &err));
    bad = compare_plain("mix_images, share", elems, dst, 1e-7);
    mix.is_box = 1;
    for (int k = 0; k < 4; k++) { /* the last box is empty */
        mix.top = (int)random_below((uint32_t)shape.h);
        mix.bottom = mix.top + (int)random_below((uint32_t)(shape.h - mix.top) + 1);
        mix.left = (int)random_below((uint32_t)shape.w);
        mix.right = k == 3 ? mix.left : shape.w;
        ON_BOTH(ops->mix_images(be, n, shape, src.at[b], &mix, dst.at[b], &err));
        bad += compare_plain("mix_images, box", elems, dst, 0);
    }
    release();
    return bad;
}

static int check_nonfinite(size_t n, float odd, int expected)
{
    float *values = random_floats(n);
    struct both x, result = make_bytes(sizeof(double));
    int bad = 0;

    values[random_below((uint32_t)n)] = odd;
    x = make_plain(n, values);
    for (int b = 0; b < BOTH; b++) {
        double found = -1;

        OK(backend[b]->ops->nonfinite(backend[b], n, x.at[b], result.at[b], &err));
        OK(backend[b]->ops->download(backend[b], &found, result.at[b], sizeof found, &err));
        bad += found != expected;
    }
    return bad;
}

int check_flat(size_t n)
{
    struct apd_sgd sgd = {
        .grad_scale = 1.0 / 320, .lr = 0.1, .momentum = 0.9, .weight_decay = 0.01};
    struct both d_w = make_plain(n, random_floats(n)), w = make_plain(n, random_floats(n));
    struct both m = make_plain(n, random_floats(n));
    int bad = 0;

    ON_BOTH(ops->add(be, n, d_w.at[b], w.at[b], &err));
    bad += compare_plain("add", n, w, 0);
    for (sgd.nesterov = 0; sgd.nesterov < 2; sgd.nesterov++) {
        ON_BOTH(ops->sgd(be, n, &sgd, d_w.at[b], w.at[b], m.at[b], &err));
        bad += compare_plain("sgd w", n, w, 1e-6);
        bad += compare_plain("sgd m", n, m, 1e-6);
    }
    ON_BOTH(ops->average(be, n, 0.999, d_w.at[b], m.at[b], &err));
    bad += compare_plain("average", n, m, 1e-6);
    bad += check_nonfinite(n, 1, 0);
    bad += check_nonfinite(n, strtof("nan", NULL), 1);
    bad += check_nonfinite(n, strtof("inf", NULL), 1);
    bad += check_nonfinite(n, strtof("-inf", NULL), 1);
    bad += check_nonfinite(n, 3e38f, 0);
    release();
    return bad;
}
