/* The two formulas that Pillow's enhancements are made of, to the bit. */
#ifndef APD_WORKER_DATA_BLEND_H
#define APD_WORKER_DATA_BLEND_H

#include <stdint.h>

/* Image.blend: from + factor (to - from), in float, cut to 0 .. 255 and truncated. */
static inline uint8_t apd_blend(int from, int to, float factor)
{
    float v = (float)from + factor * (float)(to - from);

    v = v > 0 ? v : 0;
    return (uint8_t)(v < 255 ? v : 255);
}

/* RGB to grey: ITU-R 601 in 16-bit fixed point, rounded. */
static inline int apd_luma(const uint8_t rgb[3])
{
    return (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16;
}

#endif
