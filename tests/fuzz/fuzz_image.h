/* What the fuzz programs of the image formats share. */
#ifndef APD_TESTS_FUZZ_IMAGE_H
#define APD_TESTS_FUZZ_IMAGE_H

#include "tests/fuzz/fuzz.h"

struct fuzz_file {
    unsigned char *bytes; /* freed by fuzz_images */
    size_t size;
};

/* fuzz_main over damaged copies of `files`: each is refused as APD_DATA with a message, or gives an
 * image of the size that some random view of it has. `mend` (may be NULL) makes checksums right
 * again, every second time. */
int fuzz_images(int argc, char **argv, const struct fuzz_file *files, int count,
                void (*mend)(unsigned char *bytes, size_t size));

#endif
