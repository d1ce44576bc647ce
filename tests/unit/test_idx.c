/* IDX: the real Fashion-MNIST where it is installed, and small files damaged in every way. */
#include "tests/support/scratch.h"
#include "worker/data/dataset.h"
#include "worker/data/idx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define FASHION_MNIST "/usr/share/datasets/fashion-mnist"
#define IMAGES        "train-images-idx3-ubyte"
#define LABELS        "train-labels-idx1-ubyte"

enum { N = 5, H = 3, W = 4, IMAGES_BYTES = 16 + N * H * W, LABELS_BYTES = 8 + N };

/* A sound pair of files in memory. */
/* The stored pixels of a sample, copied. */
static enum apd_code read_pixels(const struct apd_dataset *dataset, uint64_t sample,
                                 uint8_t *out_pixels, int32_t *out_label, struct apd_err *err)
{
    struct apd_buffer buffer = {0};
    struct apd_stored stored = {0};
    enum apd_code rc = apd_dataset_fetch(dataset, sample, &buffer, &stored, err);

    if (rc == APD_OK) {
        memcpy(out_pixels, stored.bytes, stored.size);
        *out_label = stored.label;
    }
    free(buffer.bytes);
    return rc;
}

static uint8_t images[IMAGES_BYTES], labels[LABELS_BYTES];

static void put_size(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void fill_sound(void)
{
    put_size(images, 0x803);
    put_size(images + 4, N);
    put_size(images + 8, H);
    put_size(images + 12, W);
    for (int i = 0; i < N * H * W; i++)
        images[16 + i] = (uint8_t)(i * 7 + 1);
    put_size(labels, 0x801);
    put_size(labels + 4, N);
    for (int i = 0; i < N; i++)
        labels[8 + i] = (uint8_t)(i % 3);
}

static void forget(const char *name)
{
    char packed[64];

    (void)snprintf(packed, sizeof packed, "%s.gz", name);
    (void)unlink(scratch_path(name));
    (void)unlink(scratch_path(packed));
}

static void write_sound(void)
{
    fill_sound();
    forget(IMAGES);
    forget(LABELS);
    scratch_write(scratch_path(IMAGES), images, sizeof images);
    scratch_write(scratch_path(LABELS), labels, sizeof labels);
}

static enum apd_code open_scratch(uint32_t classes, struct apd_dataset **out, struct apd_err *err)
{
    *out = NULL;
    memset(err, 0, sizeof *err);
    return apd_dataset_open("idx", scratch_path("."), APD_SPLIT_TRAIN, classes, out, err);
}

/* It must fail with this code, and say so about this file. */
static void assert_refused(enum apd_code code, const char *name, const char *text)
{
    struct apd_dataset *dataset;
    struct apd_err err;
    enum apd_code rc = open_scratch(0, &dataset, &err);

    if (rc != code || strstr(err.msg, name) == NULL || strstr(err.msg, text) == NULL)
        fail_msg("%s: \"%s\", expected %s about %s: %s", apd_code_name(rc), err.msg,
                 apd_code_name(code), name, text);
    assert_null(dataset);
}

static void assert_sound(void)
{
    struct apd_dataset *dataset;
    struct apd_err err;
    uint8_t pixels[H * W];
    int32_t label;

    if (open_scratch(0, &dataset, &err) != APD_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(dataset->samples, N);
    assert_int_equal(dataset->classes, 3);
    assert_int_equal(dataset->c, 1);
    assert_int_equal(dataset->h, H);
    assert_int_equal(dataset->w, W);
    assert_int_equal(dataset->shards, 1);
    assert_int_equal(dataset->shard_samples[0], N);
    for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(read_pixels(dataset, i, pixels, &label, &err), APD_OK);
        assert_memory_equal(pixels, images + 16 + i * H * W, H * W);
        assert_int_equal(label, labels[8 + i]);
    }
    assert_int_equal(read_pixels(dataset, N, pixels, &label, &err), APD_BUG);
    apd_dataset_close(&dataset);
    assert_null(dataset);
    apd_dataset_close(&dataset);
}

static void fashion_mnist_is_read_whole(void **state)
{
    struct apd_dataset *train = NULL, *test = NULL;
    uint8_t pixels[28 * 28];
    uint32_t sum = 0;
    int32_t label;
    struct apd_err err;

    (void)state;
    if (access(FASHION_MNIST, F_OK) != 0)
        skip();
    assert_int_equal(apd_dataset_open("idx", FASHION_MNIST, APD_SPLIT_TRAIN, 0, &train, &err),
                     APD_OK);
    assert_int_equal(train->samples, 60000);
    assert_int_equal(train->classes, 10);
    assert_int_equal(train->h, 28);
    assert_int_equal(train->w, 28);
    assert_int_equal(train->shards, 59);
    assert_int_equal(train->shard_samples[57], 1024);
    assert_int_equal(train->shard_samples[58], 60000 - 58 * 1024);
    /* zcat train-images... train-labels... | sha256sum */
    assert_string_equal(train->digest,
                        "d9ef4273af5c2e360155dad0c06bd939447bf37a6620db007d69fc79e4732045");
    assert_int_equal(read_pixels(train, 0, pixels, &label, &err), APD_OK);
    for (size_t i = 0; i < sizeof pixels; i++)
        sum += pixels[i];
    assert_int_equal(sum, 76247);
    assert_int_equal(label, 9);
    assert_int_equal(
        apd_dataset_open("idx", FASHION_MNIST, APD_SPLIT_TEST, train->classes, &test, &err),
        APD_OK);
    assert_int_equal(test->samples, 10000);
    assert_string_equal(test->digest,
                        "30214f3fe91405cb8ea60b11ecf0914a65dd6a6ca8e13c13a62eb434f2d9fe56");
    apd_dataset_close(&test);
    apd_dataset_close(&train);
}

static void plain_and_packed_files_are_the_same_data(void **state)
{
    struct apd_dataset *plain, *packed;
    struct apd_err err;

    (void)state;
    write_sound();
    assert_sound();
    assert_int_equal(open_scratch(0, &plain, &err), APD_OK);
    forget(IMAGES);
    scratch_write_gzip(scratch_path(IMAGES ".gz"), images, sizeof images);
    assert_sound();
    forget(LABELS);
    scratch_write_gzip(scratch_path(LABELS), labels, sizeof labels); /* packed, not named so */
    assert_sound();
    assert_int_equal(open_scratch(0, &packed, &err), APD_OK);
    assert_string_equal(plain->digest, packed->digest);
    apd_dataset_close(&plain);
    apd_dataset_close(&packed);
}

static void gzip_of_several_members_is_one_file(void **state)
{
    const char *path = scratch_path(IMAGES);
    unsigned char *a, *b, both[512];
    size_t a_size, b_size;

    (void)state;
    write_sound();
    scratch_write_gzip(path, images, 21);
    a = scratch_read(path, &a_size);
    scratch_write_gzip(path, images + 21, sizeof images - 21);
    b = scratch_read(path, &b_size);
    assert_true(a_size + b_size <= sizeof both);
    memcpy(both, a, a_size);
    memcpy(both + a_size, b, b_size);
    scratch_write(path, both, a_size + b_size);
    assert_sound();
    scratch_write(path, both, a_size + b_size - 1); /* the second member is cut */
    assert_refused(APD_DATA, IMAGES, "truncated gzip");
    free(a);
    free(b);
}

static void other_bytes_give_another_digest(void **state)
{
    struct apd_dataset *before, *after;
    struct apd_err err;

    (void)state;
    write_sound();
    assert_int_equal(open_scratch(0, &before, &err), APD_OK);
    images[16 + 30] ^= 1;
    scratch_write(scratch_path(IMAGES), images, sizeof images);
    assert_int_equal(open_scratch(0, &after, &err), APD_OK);
    assert_string_not_equal(before->digest, after->digest);
    apd_dataset_close(&after);
    write_sound();
    labels[8] = 1;
    scratch_write(scratch_path(LABELS), labels, sizeof labels);
    assert_int_equal(open_scratch(0, &after, &err), APD_OK);
    assert_string_not_equal(before->digest, after->digest);
    apd_dataset_close(&after);
    apd_dataset_close(&before);
}

static void plain_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    write_sound();
    for (size_t size = 0; size < sizeof images; size++) {
        scratch_write(scratch_path(IMAGES), images, size);
        assert_refused(APD_DATA, IMAGES, "offset");
    }
    write_sound();
    for (size_t size = 0; size < sizeof labels; size++) {
        scratch_write(scratch_path(LABELS), labels, size);
        assert_refused(APD_DATA, LABELS, "offset");
    }
}

static void packed_file_cut_anywhere_is_refused(void **state)
{
    const char *path = scratch_path(IMAGES);
    unsigned char *packed;
    size_t size;

    (void)state;
    write_sound();
    scratch_write_gzip(path, images, sizeof images);
    packed = scratch_read(path, &size);
    for (size_t cut = 0; cut < size; cut++) {
        scratch_write(path, packed, cut);
        assert_refused(APD_DATA, IMAGES, "offset");
    }
    free(packed);
}

static void any_flipped_bit_of_a_header_is_refused(void **state)
{
    (void)state;
    write_sound();
    for (int bit = 0; bit < 16 * 8; bit++) {
        images[bit / 8] ^= (uint8_t)(1 << bit % 8);
        scratch_write(scratch_path(IMAGES), images, sizeof images);
        assert_refused(APD_DATA, IMAGES, "offset");
        images[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    write_sound();
    for (int bit = 0; bit < 8 * 8; bit++) {
        labels[bit / 8] ^= (uint8_t)(1 << bit % 8);
        scratch_write(scratch_path(LABELS), labels, sizeof labels);
        assert_refused(APD_DATA, LABELS, "offset");
        labels[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

/* gzip's own header holds bits that mean nothing (time, system); all others are guarded by its CRC.
 */
static void any_flipped_bit_of_a_packed_file_is_refused_or_means_nothing(void **state)
{
    const char *path = scratch_path(IMAGES);
    struct apd_dataset *dataset;
    char digest[APD_SHA256_HEX];
    unsigned char *packed;
    struct apd_err err;
    size_t size, refused = 0;

    (void)state;
    write_sound();
    scratch_write_gzip(path, images, sizeof images);
    assert_int_equal(open_scratch(0, &dataset, &err), APD_OK);
    memcpy(digest, dataset->digest, sizeof digest);
    apd_dataset_close(&dataset);
    packed = scratch_read(path, &size);
    for (size_t bit = 0; bit < size * 8; bit++) {
        packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        scratch_write(path, packed, size);
        packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (open_scratch(0, &dataset, &err) == APD_OK) {
            assert_string_equal(dataset->digest, digest);
            apd_dataset_close(&dataset);
        } else {
            assert_int_equal(err.code, APD_DATA);
            assert_non_null(strstr(err.msg, IMAGES));
            refused++;
        }
    }
    assert_true(refused >= (size - 8) * 8);
    free(packed);
}

static void trailing_bytes_are_refused(void **state)
{
    uint8_t longer[IMAGES_BYTES + 1] = {0};
    unsigned char *packed, *garbage;
    size_t size;

    (void)state;
    write_sound();
    memcpy(longer, images, sizeof images);
    scratch_write(scratch_path(IMAGES), longer, sizeof longer);
    assert_refused(APD_DATA, IMAGES, "trailing bytes at offset 76");
    scratch_write_gzip(scratch_path(IMAGES), longer, sizeof longer);
    assert_refused(APD_DATA, IMAGES, "trailing bytes at offset 76");
    scratch_write_gzip(scratch_path(IMAGES), images, sizeof images);
    packed = scratch_read(scratch_path(IMAGES), &size);
    garbage = calloc(1, size + 2);
    assert_non_null(garbage);
    memcpy(garbage, packed, size);
    scratch_write(scratch_path(IMAGES), garbage, size + 2);
    assert_refused(APD_DATA, IMAGES, "damaged gzip stream");
    free(garbage);
    free(packed);
}

static void other_number_of_labels_is_refused(void **state)
{
    (void)state;
    write_sound();
    put_size(labels + 4, N - 1);
    scratch_write(scratch_path(LABELS), labels, sizeof labels - 1);
    assert_refused(APD_DATA, LABELS, "4 labels at offset 4, expected 5");
}

static void labels_and_images_swapped_are_refused(void **state)
{
    (void)state;
    write_sound();
    scratch_write(scratch_path(IMAGES), labels, sizeof labels);
    assert_refused(APD_DATA, IMAGES, "ends at offset 13 inside the header");
    scratch_write(scratch_path(IMAGES), images, sizeof images);
    scratch_write(scratch_path(LABELS), images, sizeof images);
    assert_refused(APD_DATA, LABELS, "magic at offset 0 is 0x00000803, expected 0x00000801");
}

/* A header that promises gigabytes must not make us take them: the process may have 1 GiB in all.
 */
static void huge_sizes_take_no_memory(void **state)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    struct rlimit old, tight;

    assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
    tight = (struct rlimit){.rlim_cur = (rlim_t)1 << 30, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
#endif
    (void)state;
    write_sound();
    put_size(images + 4, 1000);
    put_size(images + 8, 2000);
    put_size(images + 12, 2000);
    scratch_write(scratch_path(IMAGES), images, sizeof images);
    assert_refused(APD_DATA, IMAGES, "expected 4000000000 bytes from offset 16 on");
    scratch_write_gzip(scratch_path(IMAGES), images, sizeof images);
    assert_refused(APD_DATA, IMAGES, "expected 4000000000 bytes from offset 16 on");
    put_size(images + 4, UINT32_MAX);
    scratch_write(scratch_path(IMAGES), images, sizeof images);
    assert_refused(APD_DATA, IMAGES, "expected at most 4294967296");
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
#endif
}

static void label_beyond_the_classes_is_refused(void **state)
{
    struct apd_dataset *dataset;
    struct apd_err err;

    (void)state;
    write_sound();
    assert_int_equal(open_scratch(3, &dataset, &err), APD_OK);
    apd_dataset_close(&dataset);
    assert_int_equal(open_scratch(12, &dataset, &err), APD_OK);
    assert_int_equal(dataset->classes, 12);
    apd_dataset_close(&dataset);
    assert_int_equal(open_scratch(2, &dataset, &err), APD_DATA);
    assert_non_null(strstr(err.msg, "sample 2 (offset 10) is 2, expected below 2"));
    memset(labels + 8, 0, N);
    scratch_write(scratch_path(LABELS), labels, sizeof labels);
    assert_refused(APD_DATA, LABELS, "all labels are 0");
}

static void missing_files_are_named(void **state)
{
    struct apd_dataset *dataset = NULL;
    struct apd_err err;

    (void)state;
    write_sound();
    forget(LABELS);
    assert_refused(APD_CONFIG, LABELS, LABELS ".gz");
    assert_int_equal(apd_dataset_open("idx", "/nonexistent", APD_SPLIT_TEST, 0, &dataset, &err),
                     APD_CONFIG);
    assert_non_null(strstr(err.msg, "t10k-images-idx3-ubyte"));
    assert_int_equal(apd_dataset_open("tiff", ".", APD_SPLIT_TEST, 0, &dataset, &err), APD_CONFIG);
    assert_non_null(strstr(err.msg, "tiff"));
    assert_null(dataset);
}

static int set_up(void **state)
{
    (void)state;
    scratch_create();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fashion_mnist_is_read_whole),
        cmocka_unit_test(plain_and_packed_files_are_the_same_data),
        cmocka_unit_test(gzip_of_several_members_is_one_file),
        cmocka_unit_test(other_bytes_give_another_digest),
        cmocka_unit_test(plain_file_cut_anywhere_is_refused),
        cmocka_unit_test(packed_file_cut_anywhere_is_refused),
        cmocka_unit_test(any_flipped_bit_of_a_header_is_refused),
        cmocka_unit_test(any_flipped_bit_of_a_packed_file_is_refused_or_means_nothing),
        cmocka_unit_test(trailing_bytes_are_refused),
        cmocka_unit_test(other_number_of_labels_is_refused),
        cmocka_unit_test(labels_and_images_swapped_are_refused),
        cmocka_unit_test(huge_sizes_take_no_memory),
        cmocka_unit_test(label_beyond_the_classes_is_refused),
        cmocka_unit_test(missing_files_are_named),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
