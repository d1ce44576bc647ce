#include "worker/data/resize.h"

#include "base/isa.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Output pixel i is the sum of `taps` source pixels from begin + first[i] on; the last of them have
 * weight 0. */
struct filter {
    int count;        /* output pixels; arrays are rounded up to whole groups of them */
    int taps;         /* per output pixel, a multiple of APD_RESIZE_TAPS */
    int begin, end;   /* source pixels that count */
    int32_t *first;   /* [count rounded up] */
    int32_t *used;    /* [count]: taps before the trailing ones of weight 0 */
    int32_t *weights; /* [count rounded up][taps] */
    size_t room, weights_room;
};

struct apd_resizer {
    const struct apd_resize_lanes *lanes;
    struct filter x, y;
    int32_t *woven; /* x.weights in the order of `across` */
    size_t woven_room;
    enum apd_layout layout;
    uint8_t *out;
    int rows_in, rows_out;

    int ring_rows; /* source row r, resized across, is in slot r mod ring_rows */
    uint8_t *ring; /* [ring_rows] rows of x.count pixels, rounded up; behind it one output row */
    size_t ring_room;
    const uint8_t **taps; /* [y.taps] */
    size_t taps_room;
};

static int round_up(int n, int multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* At least `bytes` in place of `old`, whose contents are lost; NULL, with *room 0, if there is no
 * memory. */
static void *grown(void *old, size_t *room, size_t bytes)
{
    void *fresh;

    if (bytes <= *room)
        return old;
    free(old);
    fresh = malloc(bytes);
    *room = fresh != NULL ? bytes : 0;
    return fresh;
}

/* ---- weights ---- */

static double triangle(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

/* The weights of one output pixel, from tap 0 on; returns how many taps. Rounded exactly as
 * Pillow's precompute_coeffs and normalize_coeffs_8bpc do: same operations in the same order. */
static int weigh(const struct apd_axis *axis, double scale, int at, int32_t *weights,
                 int32_t *out_first)
{
    double support = scale < 1 ? 1 : scale, per_tap = 1 / support, sum = 0;
    double centre = (at + 0.5) * scale;
    int first = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);

    if (first < 0)
        first = 0;
    if (end > axis->size)
        end = axis->size;
    for (int i = first; i < end; i++)
        sum += triangle((i - centre + 0.5) * per_tap);
    for (int i = first; i < end; i++) {
        double share = triangle((i - centre + 0.5) * per_tap);

        if (sum != 0)
            share /= sum;
        weights[i - first] = (int32_t)(0.5 + share * APD_RESIZE_ONE);
    }
    *out_first = first;
    return end - first;
}

/* Drops taps of weight 0 at both ends; at least one stays. */
static int trim(int32_t *weights, int taps, int32_t *first)
{
    int skip = 0;

    while (taps > 1 && weights[taps - 1] == 0)
        taps--;
    while (skip < taps - 1 && weights[skip] == 0)
        skip++;
    memmove(weights, weights + skip, (size_t)(taps - skip) * sizeof *weights);
    *first += skip;
    return taps - skip;
}

static enum apd_code make_room(struct filter *filter, int count, int taps, struct apd_err *err)
{
    size_t outputs = (size_t)round_up(count, APD_RESIZE_PIXELS);

    filter->first = grown(filter->first, &filter->room, 2 * outputs * sizeof *filter->first);
    filter->weights = grown(filter->weights, &filter->weights_room,
                            outputs * (size_t)taps * sizeof *filter->weights);
    if (filter->first == NULL || filter->weights == NULL)
        return apd_fail(err, APD_NOMEM, "weights of %d pixels to resize an image", count);
    filter->used = filter->first + outputs;
    return APD_OK;
}

/* From `wide` weights an output pixel to as few as the longest of them needs. */
static void pack(struct filter *filter, int wide)
{
    int most = 1;

    for (int i = 0; i < filter->count; i++)
        if (filter->used[i] > most)
            most = filter->used[i];
    filter->taps = round_up(most, APD_RESIZE_TAPS);
    for (int i = 0; i < filter->count; i++) {
        int32_t *to = filter->weights + (size_t)i * (size_t)filter->taps;
        size_t used = (size_t)filter->used[i];

        memmove(to, filter->weights + (size_t)i * (size_t)wide, used * sizeof *to);
        memset(to + used, 0, ((size_t)filter->taps - used) * sizeof *to);
    }
}

/* Counts from the first source pixel that is needed, and gives the last group of output pixels its
 * full size. */
static void finish(struct filter *filter)
{
    int filled = round_up(filter->count, APD_RESIZE_PIXELS);

    filter->begin = filter->first[0];
    filter->end = 0;
    for (int i = 0; i < filter->count; i++) {
        if (filter->first[i] < filter->begin)
            filter->begin = filter->first[i];
        if (filter->first[i] + filter->used[i] > filter->end)
            filter->end = filter->first[i] + filter->used[i];
    }
    for (int i = 0; i < filter->count; i++)
        filter->first[i] -= filter->begin;
    for (int i = filter->count; i < filled; i++)
        filter->first[i] = 0;
    memset(filter->weights + (size_t)filter->count * (size_t)filter->taps, 0,
           (size_t)(filled - filter->count) * (size_t)filter->taps * sizeof *filter->weights);
}

static enum apd_code make_filter(const struct apd_axis *axis, int mirror, struct filter *filter,
                                 struct apd_err *err)
{
    double scale = (double)axis->size / axis->out;
    int wide = round_up((int)ceil(scale < 1 ? 1 : scale) * 2 + 1, APD_RESIZE_TAPS);

    APD_TRY(make_room(filter, axis->count, wide, err));
    filter->count = axis->count;
    for (int i = 0; i < axis->count; i++) {
        int32_t *weights = filter->weights + (size_t)i * (size_t)wide;
        int at = axis->first + (mirror ? axis->count - 1 - i : i);
        int taps = weigh(axis, scale, at, weights, &filter->first[i]);

        filter->used[i] = trim(weights, taps, &filter->first[i]);
    }
    pack(filter, wide);
    finish(filter);
    return APD_OK;
}

/* Two 16-bit numbers in an integer. */
static int32_t two(int32_t a, int32_t b)
{
    return (int32_t)((uint32_t)a | (uint32_t)b << 16);
}

/* The weights of filter x in the order and the parts that resize_lanes.h tells. */
static enum apd_code weave(struct apd_resizer *resizer, struct apd_err *err)
{
    const struct filter *x = &resizer->x;
    int filled = round_up(x->count, APD_RESIZE_PIXELS);
    size_t bytes = (size_t)filled * (size_t)x->taps * sizeof *resizer->woven;

    resizer->woven = grown(resizer->woven, &resizer->woven_room, bytes);
    if (resizer->woven == NULL)
        return apd_fail(err, APD_NOMEM, "weights of %d pixels to resize an image", x->count);
    for (int i = 0; i < filled; i++) {
        const int32_t *w = x->weights + (size_t)i * (size_t)x->taps;
        int32_t *to = resizer->woven + (size_t)(i / 4 * 4) * (size_t)x->taps + i % 4 * 4;

        for (int k = 0; k < x->taps; k += 4, w += 4, to += 16) {
            const int low = APD_RESIZE_LOW_BITS, mask = (1 << low) - 1;

            to[0] = two(w[0] >> low, w[1] >> low);
            to[1] = two(w[2] >> low, w[3] >> low);
            to[2] = two(w[0] & mask, w[1] & mask);
            to[3] = two(w[2] & mask, w[3] & mask);
        }
    }
    return APD_OK;
}

/* ---- rows ---- */

static const struct apd_resize_lanes *best_lanes(void)
{
    if (apd_isa_supported(APD_ISA_AVX512))
        return &apd_resize_avx512;
    return apd_isa_supported(APD_ISA_AVX2) ? &apd_resize_avx2 : &apd_resize_baseline;
}

enum apd_code apd_resizer_create(const struct apd_resize_lanes *lanes, struct apd_resizer **out,
                                 struct apd_err *err)
{
    struct apd_resizer *resizer = calloc(1, sizeof *resizer);

    if (resizer == NULL)
        return apd_fail(err, APD_NOMEM, "an image resizer");
    resizer->lanes = lanes != NULL ? lanes : best_lanes();
    *out = resizer;
    return APD_OK;
}

void apd_resizer_destroy(struct apd_resizer **resizer)
{
    struct apd_resizer *dead = *resizer;

    if (dead == NULL)
        return;
    free(dead->x.first);
    free(dead->x.weights);
    free(dead->woven);
    free(dead->y.first);
    free(dead->y.weights);
    free(dead->ring);
    free(dead->taps);
    free(dead);
    *resizer = NULL;
}

/* Bytes of a row of the ring. */
static size_t ring_stride(const struct apd_resizer *resizer)
{
    return 4 * (size_t)round_up(resizer->x.count, APD_RESIZE_PIXELS);
}

/* The most source rows between the first that an output row needs and the last that has come in. */
static int rows_at_once(const struct filter *y)
{
    int most = 1, last = 0;

    for (int i = 0; i < y->count; i++) {
        if (y->first[i] + y->used[i] > last)
            last = y->first[i] + y->used[i];
        if (last - y->first[i] > most)
            most = last - y->first[i];
    }
    return most;
}

static enum apd_code make_ring(struct apd_resizer *resizer, struct apd_err *err)
{
    size_t bytes;

    resizer->ring_rows = rows_at_once(&resizer->y);
    bytes = ring_stride(resizer) * ((size_t)resizer->ring_rows + 1);
    resizer->ring = grown(resizer->ring, &resizer->ring_room, bytes);
    resizer->taps =
        grown(resizer->taps, &resizer->taps_room, (size_t)resizer->y.taps * sizeof *resizer->taps);
    if (resizer->ring == NULL || resizer->taps == NULL)
        return apd_fail(err, APD_NOMEM, "%zu bytes of rows to resize an image", bytes);
    return APD_OK;
}

/* What `across` reads of a row. */
static int readable_px(const struct filter *x)
{
    int most = x->taps;

    for (int i = 0; i < x->count; i++)
        if (x->first[i] + x->taps > most)
            most = x->first[i] + x->taps;
    return most;
}

enum apd_code apd_resizer_start(struct apd_resizer *resizer, const struct apd_axis *x,
                                const struct apd_axis *y, int flip, enum apd_layout layout,
                                uint8_t *out, struct apd_resize_source *out_source,
                                struct apd_err *err)
{
    assert(x->count >= 1 && y->count >= 1);
    APD_TRY(make_filter(x, flip, &resizer->x, err));
    APD_TRY(weave(resizer, err));
    APD_TRY(make_filter(y, 0, &resizer->y, err));
    APD_TRY(make_ring(resizer, err));
    resizer->layout = layout;
    resizer->out = out;
    resizer->rows_in = 0;
    resizer->rows_out = 0;
    *out_source = (struct apd_resize_source){
        .x = resizer->x.begin,
        .w = resizer->x.end - resizer->x.begin,
        .y = resizer->y.begin,
        .h = resizer->y.end - resizer->y.begin,
        .row_px = readable_px(&resizer->x),
    };
    return APD_OK;
}

static uint8_t *ring_row(const struct apd_resizer *resizer, int row)
{
    return resizer->ring + (size_t)(row % resizer->ring_rows) * ring_stride(resizer);
}

static void store(const struct apd_resizer *resizer, const uint8_t *line)
{
    size_t w = (size_t)resizer->x.count, plane = w * (size_t)resizer->y.count;
    uint8_t *out = resizer->out;

    if (resizer->layout == APD_LAYOUT_PLANAR) {
        out += (size_t)resizer->rows_out * w;
        resizer->lanes->split(line, resizer->x.count, out, out + plane, out + 2 * plane);
        return;
    }
    out += 3 * (size_t)resizer->rows_out * w;
    for (size_t i = 0; i < w; i++)
        memcpy(out + 3 * i, line + 4 * i, 3);
}

static void finish_row(struct apd_resizer *resizer)
{
    const struct filter *y = &resizer->y;
    uint8_t *line = resizer->ring + (size_t)resizer->ring_rows * ring_stride(resizer);
    int at = resizer->rows_out;

    for (int k = 0; k < y->used[at]; k++)
        resizer->taps[k] = ring_row(resizer, y->first[at] + k);
    resizer->lanes->down(resizer->taps, y->weights + (size_t)at * (size_t)y->taps, y->used[at],
                         round_up(resizer->x.count, APD_RESIZE_PIXELS), line);
    store(resizer, line);
    resizer->rows_out++;
}

void apd_resizer_row(struct apd_resizer *resizer, const uint8_t *row)
{
    const struct filter *x = &resizer->x, *y = &resizer->y;

    if (resizer->rows_in == y->end - y->begin)
        return;
    resizer->lanes->across(row, x->first, resizer->woven, x->taps,
                           round_up(x->count, APD_RESIZE_PIXELS),
                           ring_row(resizer, resizer->rows_in));
    resizer->rows_in++;
    while (resizer->rows_out < y->count &&
           y->first[resizer->rows_out] + y->used[resizer->rows_out] <= resizer->rows_in)
        finish_row(resizer);
}
