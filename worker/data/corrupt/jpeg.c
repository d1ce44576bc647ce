/* JPEG at a low quality: encoded and decoded again in memory, with libjpeg's defaults as Pillow
 * leaves them (4:2:0 for colour, slow integer DCT, smooth upsampling). */
#include "worker/data/corrupt/jpeg.h"

#include "worker/data/corrupt/task.h"

#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs it */
#include <stdlib.h>

#include <jpeglib.h>

#include <jerror.h>

/* libjpeg leaves its functions by error_exit, which must not return. */
struct escape {
    struct jpeg_error_mgr manager;
    jmp_buf back;
    char message[JMSG_LENGTH_MAX];
};

static void escape(j_common_ptr jpeg)
{
    struct escape *escape = (struct escape *)jpeg->err;

    jpeg->err->format_message(jpeg, escape->message);
    longjmp(escape->back, 1);
}

static struct jpeg_error_mgr *lead_errors(struct escape *to)
{
    jpeg_std_error(&to->manager);
    to->manager.error_exit = escape;
    return &to->manager;
}

static enum apd_code failed(const struct escape *escape, struct apd_err *err)
{
    return apd_fail(err, escape->manager.msg_code == JERR_OUT_OF_MEMORY ? APD_NOMEM : APD_BUG,
                    "JPEG: %s", escape->message);
}

enum apd_code apd_jpeg_encode(const struct apd_image *image, int quality, unsigned char **out,
                              unsigned long *out_bytes, struct apd_err *err)
{
    struct jpeg_compress_struct jpeg = {0};
    struct escape escape;

    *out = NULL;
    *out_bytes = 0;
    jpeg.err = lead_errors(&escape);
    if (setjmp(escape.back) != 0) {
        jpeg_destroy_compress(&jpeg);
        *out = NULL; /* libjpeg may have freed it when it grew */
        return failed(&escape, err);
    }
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, out, out_bytes);
    jpeg.image_width = (JDIMENSION)image->w;
    jpeg.image_height = (JDIMENSION)image->h;
    jpeg.input_components = image->c;
    jpeg.in_color_space = image->c == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, quality, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        JSAMPROW row = image->px + (size_t)jpeg.next_scanline * (size_t)image->w * (size_t)image->c;

        (void)jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    return APD_OK;
}

/* Into an image of the same shape. */
static enum apd_code decode(const unsigned char *file, unsigned long bytes, struct apd_image *image,
                            struct apd_err *err)
{
    struct jpeg_decompress_struct jpeg = {0};
    struct escape escape;

    jpeg.err = lead_errors(&escape);
    if (setjmp(escape.back) != 0) {
        jpeg_destroy_decompress(&jpeg);
        return failed(&escape, err);
    }
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, file, bytes);
    (void)jpeg_read_header(&jpeg, TRUE);
    jpeg_start_decompress(&jpeg);
    while (jpeg.output_scanline < jpeg.output_height) {
        JSAMPROW row =
            image->px + (size_t)jpeg.output_scanline * (size_t)image->w * (size_t)image->c;

        (void)jpeg_read_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_decompress(&jpeg);
    jpeg_destroy_decompress(&jpeg);
    return APD_OK;
}

enum apd_code apd_corrupt_jpeg_compression(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const int quality[2][APD_SEVERITIES] = {{25, 18, 15, 10, 7}, {80, 65, 58, 50, 40}};
    unsigned char *file;
    unsigned long bytes;
    enum apd_code rc;

    APD_GO(apd_jpeg_encode(task->image, quality[task->small][task->level], &file, &bytes, err));
    rc = decode(file, bytes, task->image, err);
done:
    free(file);
    return rc;
}
