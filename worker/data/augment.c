#include "worker/data/augment.h"

#include "base/rng.h"

#include <stddef.h>
#include <string.h>

struct apd_augment_choice apd_augment_choose(const struct apd_augment_settings *settings,
                                             uint32_t epoch, uint64_t sample)
{
    uint32_t places = 2 * (uint32_t)settings->crop_padding_px + 1;
    struct apd_philox block;

    if (settings->kind == APD_AUGMENT_NONE)
        return (struct apd_augment_choice){0};
    block = apd_rng(settings->seed, APD_RNG_AUGMENT, epoch, sample, 0);
    return (struct apd_augment_choice){
        .dx = (int)apd_below(block.v[0], places) - settings->crop_padding_px,
        .dy = (int)apd_below(block.v[1], places) - settings->crop_padding_px,
        .flip = (int)(block.v[2] & 1),
    };
}

static void fill_row(struct apd_augment_choice choice, int w, const uint8_t *src, uint8_t *dst)
{
    for (int x = 0; x < w; x++) {
        int from = (choice.flip ? w - 1 - x : x) + choice.dx;

        dst[x] = from >= 0 && from < w ? src[from] : 0;
    }
}

void apd_augment_apply(struct apd_augment_choice choice, int c, int h, int w, const uint8_t *src,
                       uint8_t *dst)
{
    for (int channel = 0; channel < c; channel++) {
        const uint8_t *plane = src + (size_t)channel * (size_t)h * (size_t)w;

        for (int y = 0; y < h; y++, dst += w) {
            int from = y + choice.dy;

            if (from >= 0 && from < h)
                fill_row(choice, w, plane + (size_t)from * (size_t)w, dst);
            else
                memset(dst, 0, (size_t)w);
        }
    }
}
