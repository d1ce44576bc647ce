/* Our image decoding for tests in other languages. One request a line,
 *
 *   FILE box X Y W H  W H  window X Y W H  FLIP        the fields of struct apd_view
 *   FILE centre SIDE CROP                              apd_view_centre
 *
 * is answered on stdout by "ok W H CODEC, COLOUR\n" and W * H * 3 bytes of RGB, or by
 * "error CODE MESSAGE\n". */
#include "worker/data/decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *read_file(const char *path, size_t *out_size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = NULL;
    long size;

    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0)
        abort();
    rewind(file);
    bytes = malloc((size_t)size + 1);
    if (bytes == NULL || fread(bytes, 1, (size_t)size, file) != (size_t)size)
        abort();
    (void)fclose(file);
    *out_size = (size_t)size;
    return bytes;
}

static void parse(const char *request, const struct apd_image_info *info, struct apd_view *out)
{
    int side, crop;

    *out = (struct apd_view){0};
    if (sscanf(request, "centre %d %d", &side, &crop) == 2)
        *out = apd_view_centre(info->w, info->h, side, crop);
    else if (sscanf(request, "box %d %d %d %d %d %d window %d %d %d %d %d", &out->box.x,
                    &out->box.y, &out->box.w, &out->box.h, &out->w, &out->h, &out->window.x,
                    &out->window.y, &out->window.w, &out->window.h, &out->flip) != 11)
        abort();
}

static enum apd_code answer(struct apd_decoder *decoder, const uint8_t *bytes, size_t size,
                            const char *request, struct apd_image *image, struct apd_err *err)
{
    struct apd_image_info info;
    struct apd_view view;

    APD_TRY(apd_image_probe(bytes, size, &info, err));
    parse(request, &info, &view);
    APD_TRY(apd_decode(decoder, bytes, size, &view, image, err));
    printf("ok %d %d %s, %s\n", image->w, image->h, apd_codec_name(info.codec),
           apd_colour_name(info.colour));
    (void)fwrite(image->px, 3, (size_t)image->w * (size_t)image->h, stdout);
    return APD_OK;
}

int main(void)
{
    struct apd_decoder *decoder;
    struct apd_image image = {0};
    struct apd_err err;
    char line[4096];

    if (apd_decoder_create(0, &decoder, &err) != APD_OK)
        abort();
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *space = strchr(line, ' ');
        uint8_t *bytes;
        size_t size;

        if (space == NULL)
            abort();
        *space = '\0';
        bytes = read_file(line, &size);
        if (answer(decoder, bytes, size, space + 1, &image, &err) != APD_OK)
            printf("error %s %s\n", apd_code_name(err.code), err.msg);
        free(bytes);
        (void)fflush(stdout);
    }
    apd_image_fini(&image);
    apd_decoder_destroy(&decoder);
    return 0;
}
