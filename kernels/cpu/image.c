/* Input images: bytes to [-1, 1], pixel noise, the attack, rows by index. */
#include "base/rng.h"
#include "kernels/cpu/cpu.h"

#include <string.h>

#define STRIP 1024u /* pixels of one task: a multiple of 4, the pixels of a Philox block */

static struct apd_noise_stream stream_of(const struct apd_noise *noise, int i)
{
    return (struct apd_noise_stream){
        .key = noise->seed,
        .word1 = (uint32_t)noise->purpose << 24 | (noise->epoch[i] & 0xFFFFFFu),
        .word2 = (uint32_t)noise->sample[i],
        .word3 = (uint32_t)(noise->sample[i] >> 32),
    };
}

/* Pixels [from, from + count) of image i; x and noisy (or NULL) point to the first of them. */
static void pack_strip(const struct cpu_backend *cpu, const float table[256], const uint8_t *bytes,
                       size_t from, size_t count, const struct apd_noise *noise, int i, float *x,
                       float *noisy)
{
    float delta[STRIP];

    for (size_t k = 0; k < count; k++)
        x[k] = table[bytes[k]];
    if (noisy == NULL)
        return;
    if (noise == NULL) {
        memcpy(noisy, x, count * sizeof *x);
        return;
    }
    cpu->simd->noise(stream_of(noise, i), (uint32_t)(from / 4), (count + 3) / 4,
                     (float)noise->range, delta);
    for (size_t k = 0; k < count; k++)
        noisy[k] = x[k] + delta[k];
}

static enum apd_code cpu_input_pack(struct apd_backend *be, int n, size_t pixels,
                                    const uint8_t *bytes, const struct apd_noise *noise, void *x,
                                    void *noisy, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    size_t strips = (pixels + STRIP - 1) / STRIP;
    float table[256];

    (void)err;
    for (int v = 0; v < 256; v++)
        table[v] = (float)(v / 127.5 - 1);
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, (size_t)n *pixels))
    for (size_t t = 0; t < (size_t)n * strips; t++) {
        size_t i = t / strips, from = t % strips * STRIP, at = i * pixels + from;
        size_t count = pixels - from < STRIP ? pixels - from : STRIP;

        pack_strip(cpu, table, bytes + at, from, count, noise, (int)i, (float *)x + at,
                   noisy != NULL ? (float *)noisy + at : NULL);
    }
    return APD_OK;
}

static enum apd_code cpu_attack_step(struct apd_backend *be, int n, size_t pixels, const void *x,
                                     const void *at, const void *d_x, double step, double eps,
                                     const int32_t *slot, void *next, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    size_t strips = (pixels + STRIP - 1) / STRIP;

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, (size_t)n *pixels))
    for (size_t t = 0; t < (size_t)n * strips; t++) {
        size_t i = t / strips, from = t % strips * STRIP, k = i * pixels + from;
        size_t to = (slot != NULL ? (size_t)slot[i] : i) * pixels + from;

        cpu->simd->attack(pixels - from < STRIP ? pixels - from : STRIP, (const float *)x + k,
                          (const float *)at + k, (const float *)d_x + k, (float)step, (float)eps,
                          (float *)next + to);
    }
    return APD_OK;
}

static void blend(size_t n, const float *own, const float *other, float keep, float share,
                  float *dst)
{
    for (size_t k = 0; k < n; k++)
        dst[k] = keep * own[k] + share * other[k];
}

static void paste(struct apd_shape shape, const float *own, const float *other,
                  const struct apd_mix *mix, float *dst)
{
    size_t width = (size_t)shape.w, plane = (size_t)shape.h * width;
    int columns = mix->right - mix->left;

    memcpy(dst, own, (size_t)shape.c * plane * sizeof *dst);
    for (int c = 0; columns > 0 && c < shape.c; c++)
        for (int y = mix->top; y < mix->bottom; y++) {
            size_t at = (size_t)c * plane + (size_t)y * width + (size_t)mix->left;

            memcpy(dst + at, other + at, (size_t)columns * sizeof *dst);
        }
}

static enum apd_code cpu_mix_images(struct apd_backend *be, int n, struct apd_shape shape,
                                    const void *src, const struct apd_mix *mix, void *dst,
                                    struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    size_t image = (size_t)shape.c * (size_t)shape.h * (size_t)shape.w;

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, (size_t)n *image))
    for (int i = 0; i < n; i++) {
        const float *own = (const float *)src + (size_t)i * image;
        const float *other = (const float *)src + (size_t)mix->partner[i] * image;
        float *to = (float *)dst + (size_t)i * image;

        if (mix->is_box)
            paste(shape, own, other, mix, to);
        else
            blend(image, own, other, (float)(1 - mix->share), (float)mix->share, to);
    }
    return APD_OK;
}

static enum apd_code cpu_rows_gather(struct apd_backend *be, int rows, size_t row_elems,
                                     const void *src, const int32_t *index, void *dst,
                                     struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, (size_t)rows *row_elems))
    for (int i = 0; i < rows; i++)
        memcpy((float *)dst + (size_t)i * row_elems,
               (const float *)src + (size_t)index[i] * row_elems, row_elems * sizeof(float));
    return APD_OK;
}

void cpu_image_ops(struct apd_backend_ops *ops)
{
    ops->input_pack = cpu_input_pack;
    ops->attack_step = cpu_attack_step;
    ops->mix_images = cpu_mix_images;
    ops->rows_gather = cpu_rows_gather;
}
