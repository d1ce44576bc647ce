/* Random numbers of tests: seeded, and the seed is printed, so that a failure can be had again with
 * APD_TEST_SEED=<seed>. */
#ifndef APD_TESTS_SUPPORT_RANDOM_H
#define APD_TESTS_SUPPORT_RANDOM_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct test_random {
    uint64_t state;
};

/* splitmix64 */
static inline uint64_t test_next(struct test_random *random)
{
    uint64_t x = random->state += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Uniform in [0, n), n > 0. */
static inline uint64_t test_below(struct test_random *random, uint64_t n)
{
    return test_next(random) % n;
}

/* The seed from APD_TEST_SEED, else from the clock; printed. */
static inline struct test_random test_random_start(void)
{
    const char *given = getenv("APD_TEST_SEED");
    struct timespec now;
    struct test_random random;

    clock_gettime(CLOCK_REALTIME, &now);
    random.state = given != NULL ? strtoull(given, NULL, 0)
                                 : (uint64_t)now.tv_sec * 1000000007u ^ (uint64_t)now.tv_nsec;
    fprintf(stderr, "APD_TEST_SEED=%" PRIu64 "\n", random.state);
    return random;
}

#endif
