/* SHA-256 and CRC-32C: published answers. */
#include "base/hash.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define ABC_SHA256   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define MILLION_A    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"

static void sha256_gives_the_published_answers(void **state)
{
    char hex[APD_SHA256_HEX];
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_sha256_of("abc", 3, hex, &err), APD_OK);
    assert_string_equal(hex, ABC_SHA256);
    assert_int_equal(apd_sha256_of("", 0, hex, &err), APD_OK);
    assert_string_equal(hex, EMPTY_SHA256);
}

static void sha256_in_pieces_is_that_of_the_whole(void **state)
{
    struct apd_sha256 *hash;
    char piece[1000], hex[APD_SHA256_HEX];
    struct apd_err err;

    (void)state;
    memset(piece, 'a', sizeof piece);
    assert_int_equal(apd_sha256_create(&hash, &err), APD_OK);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(apd_sha256_update(hash, piece, sizeof piece, &err), APD_OK);
    assert_int_equal(apd_sha256_hex(hash, hex, &err), APD_OK);
    assert_string_equal(hex, MILLION_A);
    apd_sha256_destroy(&hash);
    assert_null(hash);
    apd_sha256_destroy(&hash);
}

static void sha256_of_a_file_reads_all_of_it(void **state)
{
    enum { SIZE = (2 << 20) + 17 }; /* more than two of the reader's pieces */
    const char *path = scratch_path("file");
    char *data = calloc(1, SIZE), of_file[APD_SHA256_HEX], of_data[APD_SHA256_HEX];
    struct apd_err err;

    (void)state;
    assert_non_null(data);
    data[SIZE - 1] = 1;
    scratch_write(path, data, SIZE);
    assert_int_equal(apd_sha256_of_file(path, of_file, &err), APD_OK);
    assert_int_equal(apd_sha256_of(data, SIZE, of_data, &err), APD_OK);
    assert_string_equal(of_file, of_data);
    free(data);
}

static void sha256_of_a_missing_file_names_it(void **state)
{
    char hex[APD_SHA256_HEX];
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_sha256_of_file(scratch_path("none"), hex, &err), APD_IO);
    assert_non_null(strstr(err.msg, "none"));
    assert_int_equal(apd_sha256_of_file(scratch_path("."), hex, &err), APD_IO);
}

static void crc32c_gives_the_published_answers(void **state)
{
    unsigned char block[32];

    (void)state;
    assert_int_equal(apd_crc32c(0, "123456789", 9), 0xE3069283);
    /* RFC 3720, B.4 */
    memset(block, 0, sizeof block);
    assert_int_equal(apd_crc32c(0, block, 32), 0x8A9136AA);
    memset(block, 0xff, sizeof block);
    assert_int_equal(apd_crc32c(0, block, 32), 0x62A8AB43);
    for (int i = 0; i < 32; i++)
        block[i] = (unsigned char)i;
    assert_int_equal(apd_crc32c(0, block, 32), 0x46DD794E);
    for (int i = 0; i < 32; i++)
        block[i] = (unsigned char)(31 - i);
    assert_int_equal(apd_crc32c(0, block, 32), 0x113FDB5C);
}

static void crc32c_goes_on_from_a_part(void **state)
{
    (void)state;
    assert_int_equal(apd_crc32c(apd_crc32c(0, "1234", 4), "56789", 5), 0xE3069283);
    assert_int_equal(apd_crc32c(0, "", 0), 0);
}

static uint32_t crc_bit_by_bit(const unsigned char *data, size_t size)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    return ~crc;
}

static void crc32c_of_any_length_and_alignment_is_that_of_the_bits(void **state)
{
    unsigned char data[80];

    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * i * 7 + 3);
    for (size_t from = 0; from < 9; from++)
        for (size_t size = 0; from + size <= sizeof data; size++)
            assert_int_equal(apd_crc32c(0, data + from, size), crc_bit_by_bit(data + from, size));
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
        cmocka_unit_test(sha256_gives_the_published_answers),
        cmocka_unit_test(sha256_in_pieces_is_that_of_the_whole),
        cmocka_unit_test(sha256_of_a_file_reads_all_of_it),
        cmocka_unit_test(sha256_of_a_missing_file_names_it),
        cmocka_unit_test(crc32c_gives_the_published_answers),
        cmocka_unit_test(crc32c_goes_on_from_a_part),
        cmocka_unit_test(crc32c_of_any_length_and_alignment_is_that_of_the_bits),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
