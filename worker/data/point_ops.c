#include "worker/data/point_ops.h"

#include "worker/data/blend.h"

#include <stddef.h>

enum { VALUES = 256, MAX_C = 3 };

static size_t pixels(const struct apd_image *image)
{
    return (size_t)image->w * (size_t)image->h;
}

static void map(struct apd_image *image, const uint8_t table[VALUES])
{
    size_t bytes = pixels(image) * (size_t)image->c;

    for (size_t i = 0; i < bytes; i++)
        image->px[i] = table[image->px[i]];
}

void apd_op_brightness(struct apd_image *image, float factor)
{
    uint8_t table[VALUES];

    for (int v = 0; v < VALUES; v++)
        table[v] = apd_blend(0, v, factor);
    map(image, table);
}

static int mean_grey(const struct apd_image *image)
{
    size_t n = pixels(image);
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += image->c == 3 ? (uint64_t)apd_luma(image->px + 3 * i) : image->px[i];
    return (int)((double)sum / (double)n + 0.5);
}

void apd_op_contrast(struct apd_image *image, float factor)
{
    int mean = mean_grey(image);
    uint8_t table[VALUES];

    for (int v = 0; v < VALUES; v++)
        table[v] = apd_blend(mean, v, factor);
    map(image, table);
}

void apd_op_posterize(struct apd_image *image, int bits)
{
    uint8_t table[VALUES];

    for (int v = 0; v < VALUES; v++)
        table[v] = (uint8_t)(v & (0xFF00 >> bits));
    map(image, table);
}

void apd_op_solarize(struct apd_image *image, double threshold)
{
    uint8_t table[VALUES];

    for (int v = 0; v < VALUES; v++)
        table[v] = (uint8_t)(v < threshold ? v : 255 - v);
    map(image, table);
}

void apd_op_invert(struct apd_image *image)
{
    apd_op_solarize(image, 0);
}

/* ---- a table a channel, made of its histogram */

typedef void make_table(const uint32_t histogram[VALUES], uint8_t table[VALUES]);

static void map_by_histogram(struct apd_image *image, make_table *make)
{
    uint32_t histogram[MAX_C][VALUES] = {0};
    uint8_t table[MAX_C][VALUES];
    size_t c = (size_t)image->c, n = pixels(image);
    uint8_t *px = image->px;

    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < c; k++)
            histogram[k][px[c * i + k]]++;
    for (size_t k = 0; k < c; k++)
        make(histogram[k], table[k]);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < c; k++)
            px[c * i + k] = table[k][px[c * i + k]];
}

static void identity(uint8_t table[VALUES])
{
    for (int v = 0; v < VALUES; v++)
        table[v] = (uint8_t)v;
}

static int clip(int v)
{
    return v < 0 ? 0 : v < 255 ? v : 255;
}

static void stretch(const uint32_t histogram[VALUES], uint8_t table[VALUES])
{
    int low = 0, high = 255;
    double scale;

    while (histogram[low] == 0 && low < 255)
        low++;
    while (histogram[high] == 0 && high > 0)
        high--;
    if (high <= low) {
        identity(table);
        return;
    }
    scale = 255.0 / (high - low);
    for (int v = 0; v < VALUES; v++)
        table[v] = (uint8_t)clip((int)(v * scale + -low * scale));
}

static void flatten(const uint32_t histogram[VALUES], uint8_t table[VALUES])
{
    uint32_t total = 0, last = 0, step, sum;

    for (int v = 0; v < VALUES; v++) {
        total += histogram[v];
        if (histogram[v] != 0)
            last = histogram[v];
    }
    step = (total - last) / 255;
    if (step == 0) {
        identity(table);
        return;
    }
    sum = step / 2;
    for (int v = 0; v < VALUES; v++) {
        table[v] = (uint8_t)(sum / step < 255 ? sum / step : 255);
        sum += histogram[v];
    }
}

void apd_op_autocontrast(struct apd_image *image)
{
    map_by_histogram(image, stretch);
}

void apd_op_equalize(struct apd_image *image)
{
    map_by_histogram(image, flatten);
}
