#include "worker/data/color_ops.h"

#include "worker/data/blend.h"

#include <stddef.h>

void apd_op_saturation(struct apd_image *image, float factor)
{
    uint8_t *end = image->px + (size_t)image->w * (size_t)image->h * 3;

    if (image->c != 3)
        return;
    for (uint8_t *px = image->px; px < end; px += 3) {
        int grey = apd_luma(px);

        for (int k = 0; k < 3; k++)
            px[k] = apd_blend(grey, px[k], factor);
    }
}

/* Hue, 0 .. 255 for a turn, of a pixel whose largest channel is `value` and whose channels differ
 * by up to `range` > 0. What is float and what is double decides the last bit, here and below. */
static uint8_t hue_of(const uint8_t rgb[3], int value, int range)
{
    static const uint8_t next[5] = {0, 1, 2, 0, 1};
    int largest = rgb[0] == value ? 0 : rgb[1] == value ? 1 : 2;
    float up = (float)(value - rgb[next[largest + 2]]) / (float)range;
    float down = (float)(value - rgb[next[largest + 1]]) / (float)range;
    float sixths = (float)(2.0 * largest + up - down);
    double turn = sixths / 6.0 + 1.0;

    turn = turn < 1.0 ? turn : turn - 1.0;
    return (uint8_t)((float)turn * 255.0);
}

/* What a pixel's new hue and its saturation, a byte each, stand for. */
struct hues {
    struct {
        const uint8_t *level; /* of {value, falling, rising, bottom}, for each channel */
        float f;              /* part of the sixth of the circle */
    } hue[256];
    float saturation[256];
};

static void make_hues(uint8_t shift, struct hues *out)
{
    static const uint8_t levels[6][3] = {{0, 2, 3}, {1, 0, 3}, {3, 0, 2},
                                         {3, 1, 0}, {2, 3, 0}, {0, 3, 1}};

    for (int i = 0; i < 256; i++) {
        double at = (uint8_t)(i + shift) * 6.0 / 255.0;
        int sixth = (int)at;

        out->hue[i].level = levels[sixth % 6];
        out->hue[i].f = (float)(at - sixth);
        out->saturation[i] = (float)(i / 255.0);
    }
}

static void turn_hue(uint8_t rgb[3], const struct hues *hues)
{
    int rg_max = rgb[0] > rgb[1] ? rgb[0] : rgb[1], rg_min = rgb[0] < rgb[1] ? rgb[0] : rgb[1];
    int value = rg_max > rgb[2] ? rg_max : rgb[2], smallest = rg_min < rgb[2] ? rg_min : rgb[2];
    uint8_t hue, level[4];
    float s, f;

    if (value == smallest)
        return;
    hue = hue_of(rgb, value, value - smallest);
    f = hues->hue[hue].f;
    s = hues->saturation[(int)((float)(value - smallest) / (float)value * 255.0)];
    level[0] = (uint8_t)value;
    level[1] = (uint8_t)(value * (1.0 - s * f) + 0.5);
    level[2] = (uint8_t)(value * (1.0 - s * (1.0 - f)) + 0.5);
    level[3] = (uint8_t)(value * (1.0 - s) + 0.5);
    for (int k = 0; k < 3; k++)
        rgb[k] = level[hues->hue[hue].level[k]];
}

void apd_op_hue(struct apd_image *image, double turn)
{
    uint8_t *end = image->px + (size_t)image->w * (size_t)image->h * 3;
    struct hues hues;

    if (image->c != 3)
        return;
    make_hues((uint8_t)(int)(turn * 255), &hues);
    for (uint8_t *px = image->px; px < end; px += 3)
        turn_hue(px, &hues);
}
