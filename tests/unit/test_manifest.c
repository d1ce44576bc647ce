/* Manifests: what was put comes back, and damage is refused whatever its checksums say. */
#include "worker/data/manifest.h"

#include "tests/support/scratch.h"
#include "worker/data/bytes.h"
#include "worker/data/manifest_format.h"
#include "worker/index/manifest_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SAMPLES = 5, CLASSES = 3, SHARDS = 3 };

static const char *const class_names[CLASSES] = {"cat", "", "d\xc3\xb6g"};
static const uint32_t shard_samples[SHARDS] = {2, 0, 3};
static const char *path;

static struct apd_manifest_sample sample_of(uint64_t i)
{
    static const char *const paths[SAMPLES] = {"a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg",
                                               "c/0.jpg"};

    return (struct apd_manifest_sample){.path = paths[i],
                                        .offset = 512 + 1024 * i,
                                        .size = (uint32_t)(100 + i),
                                        .label = (int32_t)(i % CLASSES),
                                        .crc = (uint32_t)(0x1000 * i + 7),
                                        .shard = i < 2 ? 0 : 2};
}

static void write_manifest(enum apd_manifest_kind kind)
{
    const struct apd_manifest_info info = {.kind = kind,
                                           .samples = SAMPLES,
                                           .classes = CLASSES,
                                           .shards = SHARDS,
                                           .left_out = 9,
                                           .root = "."};
    struct apd_manifest_writer *writer = NULL;
    struct apd_err err;

    assert_int_equal(apd_manifest_create(path, &info, &writer, &err), APD_OK);
    for (int i = 0; i < CLASSES; i++)
        assert_int_equal(apd_manifest_put_class(writer, class_names[i], &err), APD_OK);
    for (int i = 0; i < SHARDS; i++) {
        struct apd_manifest_shard shard = {.path = "x.tar",
                                           .samples = shard_samples[i],
                                           .bytes = 10000,
                                           .stamp = 77 + (uint64_t)i};

        memset(shard.sha256, 'a' + i, APD_SHA256_HEX - 1);
        assert_int_equal(apd_manifest_put_shard(writer, &shard, &err), APD_OK);
    }
    for (uint64_t i = 0; i < SAMPLES; i++) {
        struct apd_manifest_sample sample = sample_of(i);

        assert_int_equal(apd_manifest_put_sample(writer, &sample, &err), APD_OK);
    }
    assert_int_equal(apd_manifest_commit(writer, NULL, &err), APD_OK);
    apd_manifest_writer_destroy(&writer);
}

static void assert_sound(enum apd_manifest_kind kind)
{
    struct apd_manifest *manifest = NULL;
    const struct apd_manifest_info *info;
    struct apd_manifest_shard shard;
    struct apd_err err;

    if (apd_manifest_open(path, &manifest, &err) != APD_OK)
        fail_msg("%s", err.msg);
    info = apd_manifest_info(manifest);
    assert_int_equal(info->kind, kind);
    assert_int_equal(info->samples, SAMPLES);
    assert_int_equal(info->classes, CLASSES);
    assert_int_equal(info->shards, SHARDS);
    assert_int_equal(info->left_out, 9);
    assert_int_equal(strlen(info->digest), APD_SHA256_HEX - 1);
    assert_int_equal(strncmp(info->root, path, strlen(info->root)), 0);
    for (uint32_t i = 0; i < CLASSES; i++)
        assert_string_equal(apd_manifest_class(manifest, i), class_names[i]);
    apd_manifest_shard(manifest, 2, &shard);
    assert_string_equal(shard.path, kind == APD_MANIFEST_TAR ? "x.tar" : "");
    assert_int_equal(shard.first_sample, 2);
    assert_int_equal(shard.samples, 3);
    assert_int_equal(shard.stamp, 79);
    assert_int_equal(shard.sha256[63], 'c');
    for (uint64_t i = 0; i < SAMPLES; i++) {
        struct apd_manifest_sample expected = sample_of(i), found;
        int folder = kind == APD_MANIFEST_FOLDER;

        apd_manifest_sample(manifest, i, &found);
        assert_string_equal(found.path, folder ? expected.path : "x.tar");
        assert_int_equal(found.offset, folder ? 0 : expected.offset);
        assert_int_equal(found.size, expected.size);
        assert_int_equal(found.label, expected.label);
        assert_int_equal(found.crc, expected.crc);
        assert_int_equal(found.shard, expected.shard);
    }
    apd_manifest_close(&manifest);
    assert_null(manifest);
    apd_manifest_close(&manifest);
}

static void assert_refused(const unsigned char *bytes, size_t size, const char *text)
{
    struct apd_manifest *manifest = NULL;
    struct apd_err err = {0};
    enum apd_code rc;

    scratch_write(path, bytes, size);
    rc = apd_manifest_open(path, &manifest, &err);
    if (rc != APD_DATA || strstr(err.msg, text) == NULL || strstr(err.msg, path) == NULL)
        fail_msg("%s: \"%s\", expected a data error with \"%s\"", apd_code_name(rc), err.msg, text);
    assert_null(manifest);
}

static void what_was_put_comes_back(void **state)
{
    (void)state;
    write_manifest(APD_MANIFEST_TAR);
    assert_sound(APD_MANIFEST_TAR);
    write_manifest(APD_MANIFEST_FOLDER);
    assert_sound(APD_MANIFEST_FOLDER);
}

static void manifest_cut_anywhere_is_refused(void **state)
{
    unsigned char *sound;
    size_t size;

    (void)state;
    write_manifest(APD_MANIFEST_FOLDER);
    sound = scratch_read(path, &size);
    for (size_t cut = 0; cut < size; cut++)
        assert_refused(sound, cut, "");
    assert_refused(sound, size + 1, "trailing bytes"); /* scratch_read ends with a NUL */
    free(sound);
}

static void any_flipped_bit_is_refused(void **state)
{
    unsigned char *sound;
    size_t size;

    (void)state;
    write_manifest(APD_MANIFEST_TAR);
    sound = scratch_read(path, &size);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        sound[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_refused(sound, size, "");
        sound[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    free(sound);
}

/* Makes all checksums right again, as somebody who forges a file would. */
static void forge(unsigned char *bytes, size_t size)
{
    size_t at = APD_MANIFEST_HEADER, names = apd_get64(bytes + APD_MH_NAMES_BYTES);
    size_t sizes[APD_SECTIONS] = {CLASSES * APD_MANIFEST_CLASS, SHARDS * APD_MANIFEST_SHARD,
                                  SAMPLES * APD_MANIFEST_RECORD, names};

    for (int s = 0; s < APD_SECTIONS && sizes[s] <= size - at; s++) {
        apd_put32(bytes + APD_MH_SECTION_CRC + 4 * s, apd_crc32c(0, bytes + at, sizes[s]));
        at += sizes[s];
    }
    apd_put32(bytes + APD_MH_CRC, apd_crc32c(0, bytes, APD_MH_CRC));
}

static void senseless_numbers_are_refused_under_right_checksums(void **state)
{
    enum {
        CLASS_TABLE = APD_MANIFEST_HEADER,
        SHARD_TABLE = CLASS_TABLE + CLASSES * APD_MANIFEST_CLASS,
        RECORDS = SHARD_TABLE + SHARDS * APD_MANIFEST_SHARD,
        NAMES = RECORDS + SAMPLES * APD_MANIFEST_RECORD,
    };
    static const struct {
        enum apd_manifest_kind kind;
        size_t at;
        uint64_t value;
        int wide; /* 64 bit */
        const char *text;
    } cases[] = {
        {APD_MANIFEST_TAR, APD_MH_VERSION, 2, 0, "version at offset 8 is 2, expected 1"},
        {APD_MANIFEST_TAR, APD_MH_KIND, 3, 0, "kind at offset 12 is 3"},
        {APD_MANIFEST_TAR, APD_MH_SAMPLES, UINT64_MAX, 1, "number of samples at offset 16"},
        {APD_MANIFEST_TAR, APD_MH_SAMPLES, SAMPLES - 1, 1, "trailing bytes"},
        {APD_MANIFEST_TAR, APD_MH_CLASSES, UINT32_MAX, 0, "number of classes at offset 24"},
        {APD_MANIFEST_TAR, APD_MH_SHARDS, UINT32_MAX, 0, "the file ends at"},
        {APD_MANIFEST_TAR, APD_MH_NAMES_BYTES, UINT64_MAX, 1, "the file ends at"},
        {APD_MANIFEST_TAR, APD_MH_ROOT, 1 << 20, 1, "place of a name at offset 48"},
        {APD_MANIFEST_TAR, CLASS_TABLE, UINT64_MAX, 1, "place of a name at offset 160"},
        {APD_MANIFEST_TAR, SHARD_TABLE + APD_MS_FIRST, 1, 1, "first sample at offset 184 is 1"},
        {APD_MANIFEST_TAR, SHARD_TABLE + APD_MS_SAMPLES, 9, 0, "samples of a shard at offset 192"},
        {APD_MANIFEST_TAR, SHARD_TABLE + APD_MS_PATH, UINT64_MAX, 1, "place of a name"},
        {APD_MANIFEST_TAR, SHARD_TABLE + APD_MS_BYTES, 1, 1, "offset of an image"},
        {APD_MANIFEST_TAR, RECORDS + APD_MR_POSITION, UINT64_MAX, 1, "offset of an image"},
        {APD_MANIFEST_TAR, RECORDS + APD_MR_SIZE, 0, 0, "size of an image"},
        {APD_MANIFEST_TAR, RECORDS + APD_MR_SIZE, UINT32_MAX, 0, "size of an image"},
        {APD_MANIFEST_TAR, RECORDS + APD_MR_LABEL, UINT32_MAX, 0, "label at offset"},
        {APD_MANIFEST_TAR, RECORDS + APD_MR_LABEL, CLASSES, 0, "is 3, expected below 3"},
        {APD_MANIFEST_TAR, RECORDS + APD_MR_SHARD, 1, 0, "is 1, expected 0"},
        {APD_MANIFEST_FOLDER, RECORDS + APD_MR_POSITION, 1 << 20, 1, "place of a name"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char *bytes;
        size_t size;

        write_manifest(cases[i].kind);
        bytes = scratch_read(path, &size);
        if (cases[i].wide)
            apd_put64(bytes + cases[i].at, cases[i].value);
        else
            apd_put32(bytes + cases[i].at, (uint32_t)cases[i].value);
        forge(bytes, size);
        assert_refused(bytes, size, cases[i].text);
        free(bytes);
    }
}

static void names_without_an_end_are_refused(void **state)
{
    unsigned char *bytes;
    size_t size;

    (void)state;
    write_manifest(APD_MANIFEST_TAR);
    bytes = scratch_read(path, &size);
    bytes[size - 1] = 'x';
    forge(bytes, size);
    assert_refused(bytes, size, "do not end with a NUL");
    free(bytes);
}

static void writer_refuses_other_numbers_than_announced(void **state)
{
    const struct apd_manifest_info info = {
        .kind = APD_MANIFEST_TAR, .samples = 1, .classes = 1, .shards = 1, .root = "."};
    struct apd_manifest_shard shard = {.path = "x.tar", .samples = 1, .bytes = 10000};
    struct apd_manifest_sample sample = sample_of(0);
    struct apd_manifest_writer *writer = NULL;
    struct apd_err err;
    int before;

    (void)state;
    before = scratch_entries(".");
    assert_int_equal(apd_manifest_create(path, &info, &writer, &err), APD_OK);
    assert_int_equal(apd_manifest_put_class(writer, "a", &err), APD_OK);
    assert_int_equal(apd_manifest_put_class(writer, "b", &err), APD_BUG);
    apd_manifest_writer_destroy(&writer);
    assert_int_equal(apd_manifest_create(path, &info, &writer, &err), APD_OK);
    assert_int_equal(apd_manifest_put_class(writer, "a", &err), APD_OK);
    assert_int_equal(apd_manifest_put_shard(writer, &shard, &err), APD_OK);
    assert_int_equal(apd_manifest_commit(writer, NULL, &err), APD_BUG);
    assert_int_equal(apd_manifest_put_sample(writer, &sample, &err), APD_OK);
    assert_int_equal(apd_manifest_put_sample(writer, &sample, &err), APD_BUG);
    apd_manifest_writer_destroy(&writer);
    assert_int_equal(scratch_entries("."), before);
}

static int set_up(void **state)
{
    (void)state;
    scratch_create();
    path = scratch_path("index");
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
        cmocka_unit_test(what_was_put_comes_back),
        cmocka_unit_test(manifest_cut_anywhere_is_refused),
        cmocka_unit_test(any_flipped_bit_is_refused),
        cmocka_unit_test(senseless_numbers_are_refused_under_right_checksums),
        cmocka_unit_test(names_without_an_end_are_refused),
        cmocka_unit_test(writer_refuses_other_numbers_than_announced),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
