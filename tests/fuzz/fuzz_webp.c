/* Damaged WebP files: lossy and lossless, with and without alpha. */
#include "tests/fuzz/fuzz_image.h"
#include "tests/support/pictures.h"

int main(int argc, char **argv)
{
    struct fuzz_file files[4];

    for (int i = 0; i < 4; i++)
        files[i].bytes = picture_make_webp(41, 30, i & 1, i >> 1, &files[i].size);
    return fuzz_images(argc, argv, files, 4, NULL);
}
