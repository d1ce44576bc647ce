/* The inner loops behind resize_lanes.h. Compiled three times with APD_RESIZE (the table's name)
 * and the flags of one instruction set. The primitives differ by instruction set, the loops do
 * not. Sums are of 32-bit integers and exact, so that their order does not matter. */
#include "worker/data/resize_lanes.h"

#include <string.h>

#ifdef __AVX2__
#include <immintrin.h>

static inline __m128i pair_order(int second)
{
    const __m128i first = _mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1);

    return second
               ? _mm_add_epi8(first, _mm_setr_epi8(8, 0, 8, 0, 8, 0, 8, 0, 8, 0, 8, 0, 8, 0, 8, 0))
               : first;
}
#endif

/* vi: LANES integers, the bytes of LANES / 4 pixels.
 *   widen    LANES bytes
 *   gather   16 bytes, four pixels, from each of LANES / 4 places
 *   pair     of each 16 bytes p0 p1 .. the 16-bit numbers p0 p4 p1 p5 .. p3 p7 (second 0: of the
 *            first two pixels) or p8 p12 .. (second 1: of the last two)
 *   products of 16-bit numbers, two neighbours added
 *   every    integer k of each 16 bytes in place of all four
 *   narrow   to bytes, above 255 to 255; there is nothing below 0 */
#if defined(__AVX512BW__)
enum { LANES = 16 };
typedef __m512i vi;

static inline vi widen(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

static inline vi gather(const uint8_t *src, const int32_t *first)
{
    vi v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(src + 4 * first[0])));

    v = _mm512_mask_broadcast_i32x4(v, 0x00f0,
                                    _mm_loadu_si128((const __m128i *)(src + 4 * first[1])));
    v = _mm512_mask_broadcast_i32x4(v, 0x0f00,
                                    _mm_loadu_si128((const __m128i *)(src + 4 * first[2])));
    return _mm512_mask_broadcast_i32x4(v, 0xf000,
                                       _mm_loadu_si128((const __m128i *)(src + 4 * first[3])));
}

static inline vi pair(vi v, int second)
{
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(pair_order(second)));
}

static inline vi products(vi a, vi b)
{
    return _mm512_madd_epi16(a, b);
}

#define every(v, k) _mm512_shuffle_epi32(v, (k)*0x55)

static inline vi load(const int32_t *p)
{
    return _mm512_loadu_si512(p);
}

static inline vi shifted(vi v)
{
    return _mm512_slli_epi32(v, APD_RESIZE_LOW_BITS);
}

static inline vi all(int32_t value)
{
    return _mm512_set1_epi32(value);
}

static inline vi add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}

static inline vi multiply(vi a, vi b)
{
    return _mm512_mullo_epi32(a, b);
}

static inline void narrow(vi v, uint8_t *p)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtusepi32_epi8(_mm512_srli_epi32(v, APD_RESIZE_BITS)));
}
#elif defined(__AVX2__)
enum { LANES = 8 };
typedef __m256i vi;

static inline vi widen(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

static inline vi gather(const uint8_t *src, const int32_t *first)
{
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(src + 4 * first[0]))),
        _mm_loadu_si128((const __m128i *)(src + 4 * first[1])), 1);
}

static inline vi pair(vi v, int second)
{
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(pair_order(second)));
}

static inline vi products(vi a, vi b)
{
    return _mm256_madd_epi16(a, b);
}

#define every(v, k) _mm256_shuffle_epi32(v, (k)*0x55)

static inline vi load(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static inline vi shifted(vi v)
{
    return _mm256_slli_epi32(v, APD_RESIZE_LOW_BITS);
}

static inline vi all(int32_t value)
{
    return _mm256_set1_epi32(value);
}

static inline vi add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}

static inline vi multiply(vi a, vi b)
{
    return _mm256_mullo_epi32(a, b);
}

static inline void narrow(vi v, uint8_t *p)
{
    vi shifted = _mm256_srli_epi32(v, APD_RESIZE_BITS);
    __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(shifted), _mm256_extracti128_si256(shifted, 1));

    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
}
#else
enum { LANES = 4 };
typedef int32_t vi __attribute__((vector_size(16)));

static inline vi widen(const uint8_t *p)
{
    return (vi){p[0], p[1], p[2], p[3]};
}

static inline vi all(int32_t value)
{
    return (vi){value, value, value, value};
}

static inline vi add(vi a, vi b)
{
    return a + b;
}

static inline vi multiply(vi a, vi b)
{
    return a * b;
}

static inline void narrow(vi v, uint8_t *p)
{
    for (int i = 0; i < LANES; i++) {
        int32_t shifted = v[i] >> APD_RESIZE_BITS;

        p[i] = shifted > 255 ? 255 : (uint8_t)shifted;
    }
}
#endif

#define HALF (APD_RESIZE_ONE / 2)

#ifdef __AVX2__
static void across(const uint8_t *src, const int32_t *first, const int32_t *weights, int taps,
                   int n, uint8_t *dst)
{
    enum { GROUP = LANES / 4 }; /* pixels in a vector */

    for (int i = 0; i < n; i += GROUP) {
        const int32_t *w = weights + i / 4 * 4 * taps + i % 4 * 4;
        vi high = all(0), low = all(HALF);

        for (int k = 0; k < taps; k += 4, w += 16) {
            vi px = gather(src + 4 * (size_t)k, first + i), parts = load(w);
            vi front = pair(px, 0), back = pair(px, 1);

            high =
                add(high, add(products(front, every(parts, 0)), products(back, every(parts, 1))));
            low = add(low, add(products(front, every(parts, 2)), products(back, every(parts, 3))));
        }
        narrow(add(shifted(high), low), dst + 4 * i);
    }
}
#else
static void across(const uint8_t *src, const int32_t *first, const int32_t *weights, int taps,
                   int n, uint8_t *dst)
{
    for (int i = 0; i < n; i++) {
        const int32_t *w = weights + i / 4 * 4 * taps + i % 4 * 4;
        const uint8_t *from = src + 4 * (size_t)first[i];
        vi sum = all(HALF);

        for (int k = 0; k < taps; k++, from += 4) {
            int32_t high = w[k / 4 * 16 + k % 4 / 2] >> 16 * (k % 2) & 0xffff;
            int32_t low = w[k / 4 * 16 + 2 + k % 4 / 2] >> 16 * (k % 2) & 0xffff;

            sum = add(sum, multiply(widen(from), all((high << APD_RESIZE_LOW_BITS) + low)));
        }
        narrow(sum, dst + 4 * i);
    }
}
#endif

static void down(const uint8_t *const *rows, const int32_t *weights, int taps, int n, uint8_t *dst)
{
    enum { AT_ONCE = 4 };

    for (int at = 0; at < 4 * n; at += AT_ONCE * LANES) {
        vi sums[AT_ONCE];

        for (int j = 0; j < AT_ONCE; j++)
            sums[j] = all(HALF);
        for (int k = 0; k < taps; k++)
            for (int j = 0; j < AT_ONCE; j++)
                sums[j] = add(sums[j], multiply(widen(rows[k] + at + j * LANES), all(weights[k])));
        for (int j = 0; j < AT_ONCE; j++)
            narrow(sums[j], dst + at + j * LANES);
    }
}

static void split(const uint8_t *src, int n, uint8_t *restrict r, uint8_t *restrict g,
                  uint8_t *restrict b)
{
    for (int i = 0; i < n; i++) {
        r[i] = src[4 * i];
        g[i] = src[4 * i + 1];
        b[i] = src[4 * i + 2];
    }
}

const struct apd_resize_lanes APD_RESIZE = {.across = across, .down = down, .split = split};
