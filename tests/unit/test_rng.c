/* Counter-based randomness: known answers and the properties the method builds on. */
#include "base/rng.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void philox_gives_the_published_answers(void **state)
{
    /* kat_vectors of Random123, philox4x32 with 10 rounds */
    static const struct {
        uint32_t counter[4];
        uint64_t key;
        uint32_t expected[4];
    } known[] = {
        {{0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         UINT64_MAX,
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         UINT64_C(0x299f31d0a4093822),
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct apd_philox got = apd_philox(known[i].key, known[i].counter);

        assert_memory_equal(got.v, known[i].expected, sizeof got.v);
    }
}

static void streams_put_purpose_epoch_and_id_into_the_counter(void **state)
{
    /* By an independent program: seed 42, APD_RNG_AUGMENT, epoch 3, sample 7, block 0. */
    static const uint32_t expected[4] = {0xa543b653, 0x9c872ef9, 0x76451f0f, 0xffb69c5d};
    struct apd_philox got = apd_rng(42, APD_RNG_AUGMENT, 3, 7, 0);
    uint32_t counter[4] = {9, 5u << 24 | 0xabcdef, 0x55667788, 0x11223344};
    struct apd_philox direct = apd_philox(UINT64_C(0x123456789abcdef0), counter);

    (void)state;
    assert_memory_equal(got.v, expected, sizeof expected);
    got = apd_rng(UINT64_C(0x123456789abcdef0), APD_RNG_SHUFFLE, 0xabcdef,
                  UINT64_C(0x1122334455667788), 9);
    assert_memory_equal(got.v, direct.v, sizeof direct.v);
}

static void permute_gives_known_images(void **state)
{
    static const uint64_t expected[] = {9, 3, 8, 1, 5, 0, 7, 2, 4, 6}; /* independent program */

    (void)state;
    for (uint64_t x = 0; x < 10; x++)
        assert_int_equal(apd_permute(UINT64_C(0x0123456789abcdef), 10, x), expected[x]);
}

static void check_permutation(uint64_t key, uint64_t n)
{
    unsigned char *seen = calloc(n, 1);

    assert_non_null(seen);
    for (uint64_t x = 0; x < n; x++) {
        uint64_t y = apd_permute(key, n, x);

        if (y >= n || seen[y]++ != 0)
            fail_msg("key %" PRIu64 " n %" PRIu64 ": image %" PRIu64 " of %" PRIu64, key, n, y, x);
    }
    free(seen);
}

static void permute_is_a_bijection_for_any_size(void **state)
{
    static const uint64_t large[] = {1023, 1024, 1025, 4097, 65535, 65536, 65537, 1281167};
    struct test_random random = test_random_start();

    (void)state;
    for (uint64_t n = 1; n <= 300; n++)
        check_permutation(test_next(&random), n);
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        check_permutation(test_next(&random), large[i]);
    check_permutation(0, 1000);
    check_permutation(UINT64_MAX, 1000);
}

static void permute_stays_in_range_for_huge_sizes(void **state)
{
    static const uint64_t sizes[] = {(UINT64_C(1) << 62) + 1, UINT64_C(1) << 63, UINT64_MAX};
    struct test_random random = test_random_start();

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int k = 0; k < 1000; k++)
            assert_true(apd_permute(test_next(&random), sizes[i], test_next(&random) % sizes[i]) <
                        sizes[i]);
}

/* Over many keys each x goes to each place equally often. (Below 9 places, where half a block has
 * two bits, this holds to 8 % only.) */
static void permute_is_even_over_keys(void **state)
{
    enum { N = 29, KEYS = 60000 };
    uint32_t hits[N][N] = {{0}};
    double chi2 = 0;

    (void)state;
    for (uint64_t key = 0; key < KEYS; key++)
        for (uint64_t x = 0; x < N; x++)
            hits[x][apd_permute(apd_mix64(key + 1), N, x)]++;
    for (int x = 0; x < N; x++)
        for (int y = 0; y < N; y++) {
            double off = hits[x][y] - (double)KEYS / N;

            chi2 += off * off / ((double)KEYS / N);
        }
    /* 784 degrees of freedom, deviation 40; the keys are fixed */
    assert_true(chi2 < 980);
}

static void below_reaches_both_ends_and_not_more(void **state)
{
    (void)state;
    assert_int_equal(apd_below(0, 9), 0);
    assert_int_equal(apd_below(UINT32_MAX, 9), 8);
    assert_int_equal(apd_below(UINT32_MAX, 1), 0);
    assert_true(apd_uniform(UINT32_MAX) < 1.0f);
    assert_true(apd_uniform(0) == 0.0f);
}

static void receipts_are_known_and_tell_epoch_from_sample(void **state)
{
    (void)state;
    assert_true(apd_receipt(0, 0) == UINT64_C(0x83ec686c1600460a));
    assert_true(apd_receipt(0, 1) == UINT64_C(0xef30b01c2974aeeb));
    assert_true(apd_receipt(1, 0) == UINT64_C(0x3ec2d42f3a45cc6e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(streams_put_purpose_epoch_and_id_into_the_counter),
        cmocka_unit_test(permute_gives_known_images),
        cmocka_unit_test(permute_is_a_bijection_for_any_size),
        cmocka_unit_test(permute_stays_in_range_for_huge_sizes),
        cmocka_unit_test(permute_is_even_over_keys),
        cmocka_unit_test(below_reaches_both_ends_and_not_more),
        cmocka_unit_test(receipts_are_known_and_tell_epoch_from_sample),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
