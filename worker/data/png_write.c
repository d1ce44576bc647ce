#include "worker/data/png_write.h"

#include <spng.h>
#include <stdlib.h>
#include <string.h>

enum apd_code apd_png_write(const uint8_t *px, int w, int h, int c, enum apd_png_effort effort,
                            struct apd_sample_bytes *out, struct apd_err *err)
{
    struct spng_ihdr ihdr = {.width = (uint32_t)w,
                             .height = (uint32_t)h,
                             .bit_depth = 8,
                             .color_type =
                                 c == 1 ? SPNG_COLOR_TYPE_GRAYSCALE : SPNG_COLOR_TYPE_TRUECOLOR};
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    uint8_t *file = NULL;
    size_t size = 0;
    enum apd_code rc;
    int failed;

    if (png == NULL)
        return apd_fail(err, APD_NOMEM, "a PNG encoder");
    failed = spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1);
    if (failed == 0 && effort == APD_PNG_FAST)
        failed = spng_set_option(png, SPNG_IMG_COMPRESSION_LEVEL, 1);
    if (failed == 0 && effort == APD_PNG_FAST)
        failed = spng_set_option(png, SPNG_FILTER_CHOICE, SPNG_FILTER_CHOICE_UP);
    if (failed == 0)
        failed = spng_set_ihdr(png, &ihdr);
    if (failed == 0)
        failed = spng_encode_image(png, px, (size_t)w * (size_t)h * (size_t)c, SPNG_FMT_PNG,
                                   SPNG_ENCODE_FINALIZE);
    if (failed == 0)
        file = spng_get_png_buffer(png, &size, &failed);
    if (file == NULL) {
        rc = apd_fail(err, failed == SPNG_EMEM ? APD_NOMEM : APD_BUG, "PNG of %d x %d pixels: %s",
                      w, h, spng_strerror(failed));
        goto done;
    }
    APD_GO(apd_sample_bytes_reserve(out, size, err));
    memcpy(out->data, file, size);
    out->size = size;
done:
    free(file);
    spng_ctx_free(png);
    return rc;
}
