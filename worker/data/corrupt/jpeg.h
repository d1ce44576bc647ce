/* JPEG files as Pillow saves them: libjpeg's defaults, 4:2:0 for colour. */
#ifndef APD_WORKER_DATA_CORRUPT_JPEG_H
#define APD_WORKER_DATA_CORRUPT_JPEG_H

#include "base/err.h"
#include "worker/data/image.h"

/* *out is the file, out_bytes long; the caller frees it. quality: 1 to 100. Any thread. */
APD_MUST_USE enum apd_code apd_jpeg_encode(const struct apd_image *image, int quality,
                                           unsigned char **out, unsigned long *out_bytes,
                                           struct apd_err *err);

#endif
