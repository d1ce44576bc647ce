/* Damaged JPEG files of all kinds. */
#include "tests/fuzz/fuzz_image.h"
#include "tests/support/pictures.h"

int main(int argc, char **argv)
{
    static const struct picture_jpeg kinds[] = {
        {.channels = 1},
        {.h_samp = 2, .v_samp = 2},
        {.h_samp = 4, .restart_interval = 2},
        {.h_samp = 2, .v_samp = 2, .progressive = 1},
        {.v_samp = 2, .arithmetic = 1},
        {.h_samp = 2, .arithmetic = 1, .progressive = 1, .restart_interval = 1},
        {.channels = 4, .ycck = 1},
    };
    enum { COUNT = sizeof kinds / sizeof *kinds };
    struct fuzz_file files[COUNT];

    for (int i = 0; i < COUNT; i++) {
        struct picture_jpeg kind = kinds[i];

        kind.w = 50 + i;
        kind.h = 37;
        files[i].bytes = picture_make_jpeg(&kind, &files[i].size);
    }
    return fuzz_images(argc, argv, files, COUNT, NULL);
}
