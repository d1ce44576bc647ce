/* Damaged PNG files of all kinds; without right checksums little of the reader would be reached. */
#include "tests/fuzz/fuzz_image.h"
#include "tests/support/pictures.h"

#include <zlib.h>

static size_t big32(const unsigned char *at)
{
    return (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
}

/* Writes the CRC of every chunk whose length fits. */
static void mend(unsigned char *bytes, size_t size)
{
    for (size_t at = 8; at + 12 <= size;) {
        size_t length = big32(bytes + at);
        unsigned long crc;

        if (length > size - at - 12)
            return;
        crc = crc32(0, bytes + at + 4, (unsigned)length + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + length + (size_t)i] = (unsigned char)(crc >> (24 - 8 * i));
        at += 12 + length;
    }
}

int main(int argc, char **argv)
{
    static const struct picture_png kinds[] = {
        {31, 20, 0, 1, 0}, {31, 20, 0, 16, 1}, {31, 20, 2, 8, 0}, {31, 20, 2, 16, 1},
        {31, 20, 3, 2, 1}, {31, 20, 3, 8, 0},  {31, 20, 4, 8, 0}, {31, 20, 6, 16, 0},
    };
    enum { COUNT = sizeof kinds / sizeof *kinds };
    struct fuzz_file files[COUNT];

    for (int i = 0; i < COUNT; i++)
        files[i].bytes = picture_make_png(&kinds[i], &files[i].size);
    return fuzz_images(argc, argv, files, COUNT, mend);
}
