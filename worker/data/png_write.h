/* PNG files of 8-bit grey or RGB images, in memory. */
#ifndef APD_WORKER_DATA_PNG_WRITE_H
#define APD_WORKER_DATA_PNG_WRITE_H

#include "base/err.h"
#include "worker/data/sample_read.h"

#include <stdint.h>

/* A fast one of a photograph is made four times as fast and is an eighth larger. */
enum apd_png_effort { APD_PNG_SMALL, APD_PNG_FAST };

/* px: [h][w][c], c 1 or 3. Any thread. */
APD_MUST_USE enum apd_code apd_png_write(const uint8_t *px, int w, int h, int c,
                                         enum apd_png_effort effort, struct apd_sample_bytes *out,
                                         struct apd_err *err);

#endif
