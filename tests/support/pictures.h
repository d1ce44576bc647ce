/* Image files made in memory, of the kinds that common tools do not write. Aborts the test program
 * if a library fails. */
#ifndef APD_TESTS_SUPPORT_PICTURES_H
#define APD_TESTS_SUPPORT_PICTURES_H

#include <stddef.h>
#include <stdint.h>

struct picture_jpeg {
    int w, h;
    int channels;       /* 1, 3, 4; 0 is 3 */
    int rgb, ycck;      /* instead of YCbCr, CMYK */
    int h_samp, v_samp; /* of the first channel against the others; 0 is 1 */
    int progressive, arithmetic;
    int restart_interval; /* MCUs */
    int quality;          /* 0 is 90 */
};

struct picture_png {
    int w, h;
    int colour_type, bits; /* as in the file; a palette has 2^bits entries */
    int interlaced;
};

/* RGB test pattern of w x h: waves, edges, and noise that is the same every time. The caller
 * frees. */
uint8_t *picture_pattern(int w, int h);

/* The file; the caller frees. */
uint8_t *picture_make_jpeg(const struct picture_jpeg *kind, size_t *out_size);
uint8_t *picture_make_png(const struct picture_png *kind, size_t *out_size);
uint8_t *picture_make_webp(int w, int h, int lossless, int alpha, size_t *out_size);

#endif
