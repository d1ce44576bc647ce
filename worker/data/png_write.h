/* PNG files of 8-bit grey or RGB images, in memory. */
#ifndef APD_WORKER_DATA_PNG_WRITE_H
#define APD_WORKER_DATA_PNG_WRITE_H

#include "base/err.h"
#include "worker/data/sample_read.h"

#include <stdint.h>

/* px: [h][w][c], c 1 or 3. Any thread. */
APD_MUST_USE enum apd_code apd_png_write(const uint8_t *px, int w, int h, int c,
                                         struct apd_sample_bytes *out, struct apd_err *err);

#endif
