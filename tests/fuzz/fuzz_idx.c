/* Damaged IDX files, plain and gzip: refused with a message, or every sample can be read. */
#include "tests/fuzz/fuzz.h"
#include "tests/support/scratch.h"
#include "worker/data/dataset.h"

#include <string.h>
#include <unistd.h>

enum { N = 7, H = 6, W = 5, IMAGES_BYTES = 16 + N * H * W, LABELS_BYTES = 8 + N };

static const char *images_path, *labels_path;
static unsigned char images[IMAGES_BYTES] = {0, 0, 8, 3, 0, 0, 0, N, 0, 0, 0, H, 0, 0, 0, W},
                     labels[LABELS_BYTES] = {0, 0, 8, 1, 0, 0, 0, N, 2, 0, 1, 2, 0, 1, 2};
static unsigned char *packed_images, *packed_labels;
static size_t packed_images_size, packed_labels_size;

static void write_pair(struct test_random *random)
{
    int packed = (int)test_below(random, 2);
    const unsigned char *sound[2] = {packed ? packed_images : images,
                                     packed ? packed_labels : labels};
    size_t size[2] = {packed ? packed_images_size : sizeof images,
                      packed ? packed_labels_size : sizeof labels};
    uint64_t which = 1 + test_below(random, 3); /* one or both are damaged */
    unsigned char damaged[2 * 1024 + 64];

    for (int i = 0; i < 2; i++) {
        size_t n = size[i];

        fuzz_check(n <= 1024, "sample file is larger than the buffer");
        memcpy(damaged, sound[i], n);
        if (which >> i & 1)
            n = fuzz_damage(random, sound[i], size[i], damaged);
        scratch_write(i == 0 ? images_path : labels_path, damaged, n);
    }
}

static void one(struct test_random *random)
{
    struct apd_dataset *dataset = NULL;
    struct apd_err err = {0};

    write_pair(random);
    if (apd_dataset_open("idx", scratch_path("."), APD_SPLIT_TRAIN, 0, &dataset, &err) != APD_OK) {
        fuzz_check(err.code == APD_DATA && strstr(err.msg, "ubyte") != NULL, "unclear error");
        fuzz_check(dataset == NULL, "output set on failure");
        return;
    }
    for (uint64_t i = 0; i < dataset->samples; i++) {
        struct apd_buffer buffer = {0};
        struct apd_stored stored = {0};

        fuzz_check(apd_dataset_fetch(dataset, i, &buffer, &stored, &err) == APD_OK,
                   "a sample of an opened data set");
        fuzz_check(stored.size == apd_dataset_image_bytes(dataset), "size of an image");
        fuzz_check(stored.label >= 0 && (uint32_t)stored.label < dataset->classes,
                   "label beyond the classes");
        free(buffer.bytes);
    }
    apd_dataset_close(&dataset);
}

int main(int argc, char **argv)
{
    int status;

    scratch_create();
    images_path = scratch_path("train-images-idx3-ubyte");
    labels_path = scratch_path("train-labels-idx1-ubyte");
    for (size_t i = 16; i < sizeof images; i++)
        images[i] = (unsigned char)(i * 37);
    scratch_write_gzip(images_path, images, sizeof images);
    packed_images = scratch_read(images_path, &packed_images_size);
    scratch_write_gzip(labels_path, labels, sizeof labels);
    packed_labels = scratch_read(labels_path, &packed_labels_size);
    status = fuzz_main(argc, argv, one);
    free(packed_images);
    free(packed_labels);
    scratch_remove();
    return status;
}
