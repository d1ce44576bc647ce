/* The inner loops behind resize_lanes.h. Compiled three times with APD_RESIZE (the table's name)
 * and the flags of one instruction set. The primitives differ by instruction set, the loops do
 * not. Sums are of 32-bit integers and exact, so that their order does not matter. */
#include "worker/data/resize_lanes.h"

#include <string.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* vi: LANES integers, the bytes of LANES / 4 pixels.
 *   widen    LANES bytes
 *   spread   one weight per pixel, to the four lanes of the pixel
 *   join     lane 4 i + j of the result: sum over p of lane 4 p + j of v[i]
 *   narrow   to bytes, above 255 to 255; there is nothing below 0 */
#if defined(__AVX512BW__)
enum { LANES = 16 };
typedef __m512i vi;

static inline vi widen(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

static inline vi spread(const int32_t *weights)
{
    const vi order = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);

    return _mm512_permutexvar_epi32(
        order, _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)weights)));
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

static inline vi join(const vi *v)
{
    vi a = add(_mm512_shuffle_i32x4(v[0], v[1], 0x44), _mm512_shuffle_i32x4(v[0], v[1], 0xee));
    vi b = add(_mm512_shuffle_i32x4(v[2], v[3], 0x44), _mm512_shuffle_i32x4(v[2], v[3], 0xee));

    return add(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
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

static inline vi spread(const int32_t *weights)
{
    const vi order = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);

    return _mm256_permutevar8x32_epi32(
        _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)weights)), order);
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

static inline vi join(const vi *v)
{
    return add(_mm256_permute2x128_si256(v[0], v[1], 0x20),
               _mm256_permute2x128_si256(v[0], v[1], 0x31));
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

static inline vi spread(const int32_t *weights)
{
    return all(*weights);
}

static inline vi add(vi a, vi b)
{
    return a + b;
}

static inline vi multiply(vi a, vi b)
{
    return a * b;
}

static inline vi join(const vi *v)
{
    return *v;
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

enum { GROUP = LANES / 4 }; /* pixels in a vector */

static void across(const uint8_t *src, const int32_t *first, const int32_t *weights, int taps,
                   int n, uint8_t *dst)
{
    for (int i = 0; i < n; i += GROUP, weights += GROUP * taps) {
        const uint8_t *from[GROUP];
        vi sums[GROUP];

        for (int j = 0; j < GROUP; j++) {
            from[j] = src + 4 * (size_t)first[i + j];
            sums[j] = multiply(widen(from[j]), spread(weights + j * taps));
        }
        for (int k = GROUP; k < taps; k += GROUP)
            for (int j = 0; j < GROUP; j++)
                sums[j] =
                    add(sums[j], multiply(widen(from[j] + 4 * k), spread(weights + j * taps + k)));
        narrow(add(join(sums), all(HALF)), dst + 4 * i);
    }
}

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
