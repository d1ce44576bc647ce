#include "base/rng.h"

struct apd_philox apd_philox(uint64_t key, const uint32_t counter[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;

        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (struct apd_philox){{c0, c1, c2, c3}};
}

struct apd_philox apd_rng(uint64_t seed, enum apd_purpose purpose, uint32_t epoch, uint64_t id,
                          uint32_t block)
{
    uint32_t counter[4] = {block, (uint32_t)purpose << 24 | (epoch & 0xFFFFFFu), (uint32_t)id,
                           (uint32_t)(id >> 32)};

    return apd_philox(seed, counter);
}

uint64_t apd_mix64(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    x ^= x >> 31;
    return x;
}

uint64_t apd_receipt(uint64_t epoch, uint64_t sample)
{
    /* +1: mix64 maps 0 to 0, and sample 0 of epoch 0 has to leave a trace too. */
    return apd_mix64(apd_mix64(epoch + 1) ^ (sample + 1));
}

uint64_t apd_permute(uint64_t key, uint64_t n, uint64_t x)
{
    unsigned half = 1; /* bits of one half */
    uint64_t mask;

    while (half < 32 && (UINT64_C(1) << (2 * half)) < n)
        half++;
    mask = (UINT64_C(1) << half) - 1;
    do {
        uint64_t left = x >> half, right = x & mask;

        for (uint64_t round = 0; round < 6; round++) {
            uint64_t f = apd_mix64(key ^ apd_mix64(right + (round << 56) + 1)) & mask;
            uint64_t t = left ^ f;

            left = right;
            right = t;
        }
        x = left << half | right;
    } while (x >= n);
    return x;
}
