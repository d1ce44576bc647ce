/* Checkpoint files: what is written is read back, others can read it, and no damage gets through.
 */
#include "tests/support/fault.h"
#include "tests/support/scratch.h"
#include "worker/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const float weights[6] = {0.5f, -1.25f, 3e-30f, 4.0f, -0.0f, 6.5f};
static const float scale[1] = {2.0f};
static const uint64_t position[2] = {UINT64_C(0xfedcba9876543210), 7};
static const struct apd_tensor tensors[] = {
    {"conv1.weight", APD_DTYPE_F32, 4, {3, 1, 1, 2}, weights},
    {"bn1.aux_bn.weight", APD_DTYPE_F32, 1, {1}, scale},
    {"empty", APD_DTYPE_F32, 2, {0, 5}, NULL},
    {"position", APD_DTYPE_U64, 1, {2}, position},
    {"scalar", APD_DTYPE_F32, 0, {0}, scale},
    {"signed", APD_DTYPE_I64, 1, {2}, position},
};
static const struct apd_meta meta[] = {
    {"step", "1200"}, {"config", "seed: 42\nname: \"caf\xc3\xa9\"\n"}, {"empty", ""}};

enum { TENSORS = sizeof tensors / sizeof *tensors, METAS = sizeof meta / sizeof *meta };

static void write_sample(const char *path, uint64_t *out_bytes, char out_sha256[APD_SHA256_HEX])
{
    struct apd_err err;

    if (apd_safetensors_write(path, tensors, TENSORS, meta, METAS, out_bytes, out_sha256, &err) !=
        APD_OK)
        fail_msg("%s", err.msg);
}

static void round_trip_keeps_everything(void **state)
{
    const char *path = scratch_path("round");
    struct apd_safetensors *file;
    char sha256[APD_SHA256_HEX], again[APD_SHA256_HEX];
    uint64_t bytes, positions[2];
    float floats[6], one;
    struct apd_err err;
    struct stat st;

    (void)state;
    write_sample(path, &bytes, sha256);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, bytes);
    assert_int_equal(apd_sha256_of_file(path, again, &err), APD_OK);
    assert_string_equal(again, sha256);

    assert_int_equal(apd_safetensors_open(path, sha256, &file, &err), APD_OK);
    assert_int_equal(apd_safetensors_count(file), TENSORS);
    for (size_t i = 0; i < TENSORS; i++) {
        const struct apd_tensor *found = apd_safetensors_find(file, tensors[i].name);

        assert_non_null(found);
        assert_int_equal(found->dtype, tensors[i].dtype);
        assert_int_equal(found->dims, tensors[i].dims);
        assert_memory_equal(found->shape, tensors[i].shape, (size_t)found->dims * 8);
    }
    assert_string_equal(apd_safetensors_at(file, 0)->name, "conv1.weight");
    assert_int_equal(apd_safetensors_read_floats(file, "conv1.weight", floats, 6, &err), APD_OK);
    assert_memory_equal(floats, weights, sizeof weights);
    assert_int_equal(apd_safetensors_read_floats(file, "scalar", &one, 1, &err), APD_OK);
    assert_true(one == 2.0f);
    assert_int_equal(apd_safetensors_read_u64(file, "position", positions, 2, &err), APD_OK);
    assert_memory_equal(positions, position, sizeof position);
    assert_int_equal(apd_safetensors_read_floats(file, "empty", NULL, 0, &err), APD_OK);
    for (size_t i = 0; i < METAS; i++)
        assert_string_equal(apd_safetensors_meta(file, meta[i].key), meta[i].value);
    assert_null(apd_safetensors_meta(file, "none"));
    assert_null(apd_safetensors_find(file, "none"));
    apd_safetensors_close(&file);
    assert_null(file);
    apd_safetensors_close(&file);
}

static void wrong_questions_are_refused(void **state)
{
    struct apd_safetensors *file;
    char sha256[APD_SHA256_HEX];
    uint64_t bytes, number;
    float floats[8];
    struct apd_err err;

    (void)state;
    write_sample(scratch_path("ask"), &bytes, sha256);
    assert_int_equal(apd_safetensors_open(scratch_path("ask"), NULL, &file, &err), APD_OK);
    assert_int_equal(apd_safetensors_read_floats(file, "conv9", floats, 6, &err), APD_DATA);
    assert_non_null(strstr(err.msg, "conv9"));
    assert_int_equal(apd_safetensors_read_floats(file, "conv1.weight", floats, 7, &err), APD_DATA);
    assert_non_null(strstr(err.msg, "6 elements, expected 7"));
    assert_int_equal(apd_safetensors_read_floats(file, "position", floats, 2, &err), APD_DATA);
    assert_int_equal(apd_safetensors_read_u64(file, "scalar", &number, 1, &err), APD_DATA);
    assert_int_equal(apd_safetensors_read_u64(file, "signed", &number, 2, &err), APD_DATA);
    apd_safetensors_close(&file);
}

static void every_type_and_all_metadata_come_back(void **state)
{
    static const unsigned char raw[24] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct apd_tensor list[APD_DTYPES];
    const struct apd_meta *found;
    struct apd_safetensors *file;
    char sha256[APD_SHA256_HEX];
    unsigned char back[24];
    struct apd_err err;
    uint64_t bytes;
    size_t count;

    (void)state;
    for (int i = 0; i < APD_DTYPES; i++)
        list[i] =
            (struct apd_tensor){apd_dtype_name((enum apd_dtype)i), (enum apd_dtype)i, 1, {3}, raw};
    assert_int_equal(apd_safetensors_write(scratch_path("types"), list, APD_DTYPES, meta, METAS,
                                           &bytes, sha256, &err),
                     APD_OK);
    assert_int_equal(apd_safetensors_open(scratch_path("types"), NULL, &file, &err), APD_OK);
    for (int i = 0; i < APD_DTYPES; i++) {
        const struct apd_tensor *tensor = apd_safetensors_find(file, list[i].name);

        assert_int_equal(tensor->dtype, i);
        assert_int_equal(apd_tensor_bytes(tensor), 3 * apd_dtype_bytes(tensor->dtype));
        assert_int_equal(apd_safetensors_read(file, tensor, back, &err), APD_OK);
        assert_memory_equal(back, raw, apd_tensor_bytes(tensor));
    }
    found = apd_safetensors_metas(file, &count);
    assert_int_equal(count, METAS);
    for (size_t i = 0; i < METAS; i++) {
        assert_string_equal(found[i].key, meta[i].key);
        assert_string_equal(found[i].value, meta[i].value);
    }
    apd_safetensors_close(&file);
}

/* A reader of fifteen lines, made from the specification's words alone. */
static void python_reads_it_by_the_specification(void **state)
{
    char command[4096], sha256[APD_SHA256_HEX];
    uint64_t bytes;

    (void)state;
    if (access(TEST_PYTHON, X_OK) != 0)
        skip();
    write_sample(scratch_path("python"), &bytes, sha256);
    (void)snprintf(command, sizeof command, "'%s' '%s' '%s'", TEST_PYTHON, TEST_SCRIPT,
                   scratch_path("python"));
    assert_int_equal(system(command), 0);
}

static void cut_anywhere_is_refused(void **state)
{
    const char *path = scratch_path("cut");
    char sha256[APD_SHA256_HEX];
    struct apd_safetensors *file = NULL;
    unsigned char *data;
    struct apd_err err;
    uint64_t bytes;
    size_t size;

    (void)state;
    write_sample(path, &bytes, sha256);
    data = scratch_read(path, &size);
    for (size_t cut = 0; cut < size; cut++) {
        scratch_write(path, data, cut);
        assert_int_equal(apd_safetensors_open(path, NULL, &file, &err), APD_DATA);
        assert_non_null(strstr(err.msg, "cut"));
        assert_int_equal(apd_safetensors_open(path, sha256, &file, &err), APD_DATA);
        assert_null(file);
    }
    scratch_write(path, data, size);
    truncate(path, (off_t)size + 1) == 0 ? (void)0 : fail();
    assert_int_equal(apd_safetensors_open(path, NULL, &file, &err), APD_DATA);
    free(data);
}

/* With the hash: refused. Without: refused, or readable to its end (a changed number, a changed
 * name). */
static void any_flipped_bit_is_refused_with_the_hash_and_harmless_without(void **state)
{
    const char *path = scratch_path("flip");
    char sha256[APD_SHA256_HEX];
    struct apd_safetensors *file = NULL;
    size_t size, refused = 0;
    unsigned char *data;
    struct apd_err err;
    uint64_t bytes;

    (void)state;
    write_sample(path, &bytes, sha256);
    data = scratch_read(path, &size);
    for (size_t bit = 0; bit < size * 8; bit++) {
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        scratch_write(path, data, size);
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_equal(apd_safetensors_open(path, sha256, &file, &err), APD_DATA);
        assert_non_null(strstr(err.msg, sha256));
        if (apd_safetensors_open(path, NULL, &file, &err) != APD_OK) {
            assert_int_equal(err.code, APD_DATA);
            refused++;
            continue;
        }
        for (size_t i = 0; i < apd_safetensors_count(file); i++) {
            const struct apd_tensor *tensor = apd_safetensors_at(file, i);
            uint64_t elems = apd_tensor_elems(tensor);
            float *floats = malloc(elems * 4 + 1);

            assert_true(elems < size);
            if (tensor->dtype == APD_DTYPE_F32)
                assert_int_equal(
                    apd_safetensors_read_floats(file, tensor->name, floats, elems, &err), APD_OK);
            free(floats);
        }
        apd_safetensors_close(&file);
    }
    assert_true(refused > 8 * 8); /* the length, and most of the JSON */
    free(data);
}

/* Writes a file with this header and `data_bytes` zero bytes after it. */
static const char *file_of(const char *header, size_t data_bytes)
{
    const char *path = scratch_path("made");
    uint64_t length = strlen(header);
    unsigned char *data = calloc(1, 8 + length + data_bytes);

    assert_non_null(data);
    memcpy(data, &length, 8);
    memcpy(data + 8, header, length);
    scratch_write(path, data, 8 + length + data_bytes);
    free(data);
    return path;
}

static void header_that_breaks_a_rule_is_refused(void **state)
{
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *says; /* NULL: it is fine */
    } cases[] = {
        {"{}", 0, NULL},
        {"{}   ", 0, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, NULL},
        {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, NULL},
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]},"
         "\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         3, NULL},
        {"", 0, "not JSON"},
        {"{", 0, "not JSON"},
        {"[]", 0, "not a JSON object"},
        {" {}", 0, "not a JSON object"},
        {"{} x", 0, "not JSON"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "metadata k is not a string"},
        {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "not JSON"},
        {"{\"a\":1}", 0, "tensor a: dtype"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "not a size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "not a size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
         "at most 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,1073741824],\"data_offsets\":[0,0]}}", 0,
         "2^64"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,7]}}", 7, "do not agree"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "do not agree"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "pair"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,-8]}}", 8, "pair"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, "9 bytes of data"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "4 bytes of data"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "expected 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, "expected 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
         16, "not JSON"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct apd_safetensors *file = NULL;
        struct apd_err err = {0};
        enum apd_code rc =
            apd_safetensors_open(file_of(cases[i].header, cases[i].data_bytes), NULL, &file, &err);

        if (rc != (cases[i].says == NULL ? APD_OK : APD_DATA) ||
            (cases[i].says != NULL && strstr(err.msg, cases[i].says) == NULL))
            fail_msg("%s: \"%s\"", cases[i].header, err.msg);
        apd_safetensors_close(&file);
    }
}

static void huge_header_takes_no_memory(void **state)
{
    static const unsigned char huge[16] = {0, 0, 0, 0, 0, 0, 0, 0x40, '{', '}'};
    struct apd_safetensors *file = NULL;
    struct apd_err err;

    (void)state;
    scratch_write(scratch_path("huge"), huge, sizeof huge);
    assert_int_equal(apd_safetensors_open(scratch_path("huge"), NULL, &file, &err), APD_DATA);
    assert_non_null(strstr(err.msg, "4611686018427387904"));
    assert_int_equal(apd_safetensors_open(scratch_path("none"), NULL, &file, &err), APD_IO);
    assert_int_equal(apd_safetensors_open(scratch_path("."), NULL, &file, &err), APD_DATA);
    assert_null(file);
}

static void whatever_call_fails_no_new_file_is_left(void **state)
{
    const char *path = scratch_path("w/ckpt"), *failed = "";
    char sha256[APD_SHA256_HEX];
    uint64_t bytes;
    int calls = 0;

    (void)state;
    assert_int_equal(mkdir(scratch_path("w"), 0755), 0);
    for (int nth = 1; failed != NULL; nth++) {
        struct apd_err err = {0};
        enum apd_code rc;

        fault_arm(nth, 0, ENOSPC);
        rc = apd_safetensors_write(path, tensors, TENSORS, meta, METAS, &bytes, sha256, &err);
        failed = fault_fired();
        if (failed == NULL) {
            assert_int_equal(rc, APD_OK);
            assert_int_equal(scratch_entries("w"), 1);
            break;
        }
        assert_int_equal(rc, APD_IO);
        assert_int_equal(err.sys, ENOSPC);
        /* "writing", "fsync of", "renaming" */
        assert_non_null(strstr(err.msg, strncmp(failed, "writ", 4) == 0    ? "writing"
                                        : strncmp(failed, "renam", 5) == 0 ? "renaming"
                                                                           : "fsync"));
        assert_int_equal(scratch_entries("w"), 0);
        calls++;
    }
    assert_true(calls >=
                3 + 5 + 3); /* header, tensors that are not empty, two fsyncs and a rename */
}

static void impossible_names_and_places_are_refused(void **state)
{
    const struct apd_tensor twice[] = {{"a", APD_DTYPE_F32, 1, {1}, scale},
                                       {"a", APD_DTYPE_F32, 1, {1}, scale}};
    const struct apd_tensor bad_name = {"a\xff", APD_DTYPE_F32, 1, {1}, scale};
    const struct apd_tensor reserved = {"__metadata__", APD_DTYPE_F32, 1, {1}, scale};
    const struct apd_meta meta_twice[] = {{"k", "1"}, {"k", "2"}};
    char sha256[APD_SHA256_HEX];
    struct apd_err err;
    uint64_t bytes;

    (void)state;
#define WRITE(name, list, count, metas, meta_count)                                                \
    apd_safetensors_write(scratch_path(name), list, count, metas, meta_count, &bytes, sha256, &err)
    assert_int_equal(WRITE("bad", twice, 2, NULL, 0), APD_BUG);
    assert_int_equal(WRITE("bad", &bad_name, 1, NULL, 0), APD_BUG);
    assert_int_equal(WRITE("bad", &reserved, 1, NULL, 0), APD_BUG);
    assert_int_equal(WRITE("bad", twice, 1, meta_twice, 2), APD_BUG);
    assert_int_equal(access(scratch_path("bad"), F_OK), -1);
    assert_int_equal(WRITE("no/such/folder", twice, 1, NULL, 0), APD_IO);
    assert_non_null(strstr(err.msg, "creating"));
    assert_int_equal(mkdir(scratch_path("taken"), 0755), 0);
    scratch_write(scratch_path("taken/file"), "", 0);
    assert_int_equal(WRITE("taken", twice, 1, NULL, 0), APD_IO); /* a folder of that name */
    assert_non_null(strstr(err.msg, "renaming"));
#undef WRITE
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
        cmocka_unit_test(round_trip_keeps_everything),
        cmocka_unit_test(every_type_and_all_metadata_come_back),
        cmocka_unit_test(wrong_questions_are_refused),
        cmocka_unit_test(python_reads_it_by_the_specification),
        cmocka_unit_test(cut_anywhere_is_refused),
        cmocka_unit_test(any_flipped_bit_is_refused_with_the_hash_and_harmless_without),
        cmocka_unit_test(header_that_breaks_a_rule_is_refused),
        cmocka_unit_test(huge_header_takes_no_memory),
        cmocka_unit_test(whatever_call_fails_no_new_file_is_left),
        cmocka_unit_test(impossible_names_and_places_are_refused),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
