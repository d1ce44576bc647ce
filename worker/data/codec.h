/* Between decode.c and the formats: a format decodes the rows of one part of an image and hands
 * them to the resizer. */
#ifndef APD_WORKER_DATA_CODEC_H
#define APD_WORKER_DATA_CODEC_H

#include "base/err.h"
#include "worker/data/decode.h"
#include "worker/data/resize.h"

#include <stddef.h>
#include <stdint.h>

/* Memory kept from image to image. */
struct apd_codec_scratch {
    uint8_t *data;
    size_t bytes;
};

struct apd_codec_job {
    const uint8_t *bytes; /* the file */
    size_t size;
    struct apd_image_info info;
    struct apd_rect part; /* the rows and columns the resizer wants */
    int row_px;           /* pixels from part.x on that must be readable in each row */
    struct apd_resizer *resizer;
    struct apd_codec_scratch *scratch;
};

/* At least `bytes` of scratch; what was in it is lost. */
APD_MUST_USE enum apd_code apd_codec_reserve(struct apd_codec_job *job, size_t bytes,
                                             struct apd_err *err);

/* Calls apd_resizer_row for every row of the part. */
APD_MUST_USE enum apd_code apd_codec_jpeg(struct apd_codec_job *job, struct apd_err *err);
APD_MUST_USE enum apd_code apd_codec_png(struct apd_codec_job *job, struct apd_err *err);
APD_MUST_USE enum apd_code apd_codec_webp(struct apd_codec_job *job, struct apd_err *err);

#endif
