#include "worker/data/corrupt/filter.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    GAUSSIAN_RADIUS_MAX = 512, /* 3 * 170.8 of elastic_transform */
    MOTION_TAPS_MAX = 64,
    TILE = 512, /* numbers that are summed at once: they stay in the first cache */
};

int apd_border_at(long long i, int n, enum apd_border border)
{
    long long period = border == APD_BORDER_MIRROR ? 2LL * n - 2 : 2LL * n;

    if (i >= 0 && i < n)
        return (int)i;
    if (border == APD_BORDER_NEAREST || n == 1)
        return i < 0 ? 0 : n - 1;
    i %= period;
    if (i < 0)
        i += period;
    if (i >= n)
        i = period - i - (border == APD_BORDER_SYMMETRIC);
    return (int)i;
}

/* dst[i] = sum over t of weight[t] * src[i + t * stride], 0 <= t < taps */
static void sum_taps(const double *src, size_t count, size_t stride, const double *weight, int taps,
                     double *dst)
{
    for (size_t first = 0; first < count; first += TILE) {
        size_t n = count - first < TILE ? count - first : TILE;
        double sum[TILE] = {0};

        for (int t = 0; t < taps; t++) {
            const double *from = src + first + (size_t)t * stride;

            for (size_t i = 0; i < n; i++)
                sum[i] += weight[t] * from[i];
        }
        memcpy(dst + first, sum, n * sizeof *sum);
    }
}

/* Filters n items of `size` numbers each, one behind the other. padded: (n + 2 radius) * size. */
static void filter_line(double *line, int n, size_t size, const double *weight, int radius,
                        enum apd_border border, double *padded)
{
    for (int i = -radius; i < n + radius; i++)
        memcpy(padded + (size_t)(i + radius) * size,
               line + (size_t)apd_border_at(i, n, border) * size, size * sizeof *line);
    sum_taps(padded, (size_t)n * size, size, weight, 2 * radius + 1, line);
}

static void gaussian_weights(double sigma, int radius, double *weight)
{
    double sum = 0;

    for (int i = -radius; i <= radius; i++)
        sum += weight[i + radius] = exp(-0.5 * i * i / (sigma * sigma));
    for (int i = 0; i <= 2 * radius; i++)
        weight[i] /= sum;
}

enum apd_code apd_filter_gaussian(struct apd_field *field, double sigma, double truncate,
                                  enum apd_border border, struct apd_field *spare,
                                  struct apd_err *err)
{
    int radius = (int)(truncate * sigma + 0.5), longer = field->w > field->h ? field->w : field->h;
    size_t row = (size_t)field->w * (size_t)field->c;
    double weight[2 * GAUSSIAN_RADIUS_MAX + 1];

    assert(radius <= GAUSSIAN_RADIUS_MAX);
    if (radius == 0)
        return APD_OK;
    gaussian_weights(sigma, radius, weight);
    APD_TRY(apd_field_reserve(spare, longer, longer + 2 * radius, field->c, err));
    filter_line(field->v, field->h, row, weight, radius, border, spare->v);
    for (int y = 0; y < field->h; y++)
        filter_line(field->v + (size_t)y * row, field->w, (size_t)field->c, weight, radius, border,
                    spare->v);
    return APD_OK;
}

/* A copy of the field in *out with `x` columns and `y` rows more on each side. */
static enum apd_code pad(const struct apd_field *field, int x, int y, enum apd_border border,
                         struct apd_field *out, struct apd_err *err)
{
    size_t c = (size_t)field->c;
    double *to;

    APD_TRY(apd_field_reserve(out, field->w + 2 * x, field->h + 2 * y, field->c, err));
    to = out->v;
    for (int row = -y; row < field->h + y; row++) {
        const double *from =
            field->v + (size_t)apd_border_at(row, field->h, border) * (size_t)field->w * c;

        for (int column = -x; column < field->w + x; column++, to += c)
            memcpy(to, from + (size_t)apd_border_at(column, field->w, border) * c, c * sizeof *to);
    }
    return APD_OK;
}

/* row += weight * the row of `padded` that begins at (x, y) */
static void add_row(const struct apd_field *padded, int x, int y, double weight, size_t count,
                    double *row)
{
    const double *from =
        padded->v + ((size_t)y * (size_t)padded->w + (size_t)x) * (size_t)padded->c;

    for (size_t i = 0; i < count; i++)
        row[i] += weight * from[i];
}

enum apd_code apd_filter_kernel(struct apd_field *field, const struct apd_field *kernel,
                                struct apd_field *spare, struct apd_err *err)
{
    size_t count = (size_t)field->w * (size_t)field->c;

    APD_TRY(pad(field, kernel->w / 2, kernel->h / 2, APD_BORDER_MIRROR, spare, err));
    for (int y = 0; y < field->h; y++) {
        double *row = field->v + (size_t)y * count;

        memset(row, 0, count * sizeof *row);
        for (int j = 0; j < kernel->h; j++)
            for (int i = 0; i < kernel->w; i++)
                if (kernel->v[j * kernel->w + i] != 0)
                    add_row(spare, i, y + j, kernel->v[j * kernel->w + i], count, row);
    }
    return APD_OK;
}

enum apd_code apd_filter_motion(struct apd_field *field, double radius, double sigma,
                                double degrees, struct apd_field *spare, struct apd_err *err)
{
    int taps = 2 * (int)ceil(radius) + 1;
    double dx = cos(degrees * M_PI / 180), dy = sin(degrees * M_PI / 180);
    size_t count = (size_t)field->w * (size_t)field->c;
    double weight[MOTION_TAPS_MAX], sum = 0;

    assert(taps <= MOTION_TAPS_MAX);
    for (int i = 0; i < taps; i++)
        sum += weight[i] = exp(-0.5 * i * i / (sigma * sigma));
    APD_TRY(pad(field, taps, taps, APD_BORDER_NEAREST, spare, err));
    for (int y = 0; y < field->h; y++) {
        double *row = field->v + (size_t)y * count;

        memset(row, 0, count * sizeof *row);
        for (int i = 0; i < taps; i++)
            add_row(spare, taps + (int)ceil(i * dx - 0.5), taps + y + (int)ceil(i * dy - 0.5),
                    weight[i] / sum, count, row);
        for (size_t i = 0; i < count; i++)
            row[i] = floor(255 * row[i] + 1 / 514.0) / 255;
    }
    return APD_OK;
}
