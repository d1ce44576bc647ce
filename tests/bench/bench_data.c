/* Our half of bench_data.py: file to normalised floats, one thread.
 *
 *   bench_data PX SEED FILES < list of paths      prints images per second
 *
 * Per image: read the file, choose a box as torchvision's RandomResizedCrop does, decode it into
 * planes of PX x PX, every second one mirrored, normalise. */
#include "base/clock.h"
#include "tests/support/random.h"
#include "worker/data/decode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FILES_MAX = 4096, BYTES_MAX = 8 << 20 };

static char *paths[FILES_MAX];
static uint8_t bytes[BYTES_MAX];

static double uniform(struct test_random *random)
{
    return (double)(test_next(random) >> 11) * 0x1p-53;
}

static struct apd_rect choose_box(struct test_random *random, int w, int h)
{
    int shorter = w < h ? w : h;

    for (int i = 0; i < 10; i++) {
        double area = (double)w * h * (0.08 + 0.92 * uniform(random));
        double ratio = exp(log(0.75) + uniform(random) * log(16.0 / 9));
        int box_w = (int)lrint(sqrt(area * ratio)), box_h = (int)lrint(sqrt(area / ratio));

        if (box_w > 0 && box_w <= w && box_h > 0 && box_h <= h)
            return (struct apd_rect){(int)test_below(random, (uint64_t)(w - box_w + 1)),
                                     (int)test_below(random, (uint64_t)(h - box_h + 1)), box_w,
                                     box_h};
    }
    return (struct apd_rect){(w - shorter) / 2, (h - shorter) / 2, shorter, shorter};
}

static size_t read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    size_t size;

    if (file == NULL)
        abort();
    size = fread(bytes, 1, BYTES_MAX, file);
    (void)fclose(file);
    return size;
}

/* Written as the loader's consumer would: one pass over each plane. */
static void normalise(const uint8_t *planes, size_t plane, float *out)
{
    static const float mean[] = {0.485f, 0.456f, 0.406f}, deviation[] = {0.229f, 0.224f, 0.225f};

    for (size_t c = 0; c < 3; c++) {
        float scale = 1 / (255 * deviation[c]), shift = -mean[c] / deviation[c];

        for (size_t i = 0; i < plane; i++)
            out[c * plane + i] = (float)planes[c * plane + i] * scale + shift;
    }
}

static void load(struct apd_decoder *decoder, const char *path, int px, struct test_random *random,
                 uint8_t *planes, float *out)
{
    size_t size = read_file(path);
    struct apd_view view = {.w = px, .h = px, .flip = (int)test_below(random, 2)};
    struct apd_image_info info;
    struct apd_err err;

    if (apd_image_probe(bytes, size, &info, &err) == APD_OK) {
        view.box = choose_box(random, info.w, info.h);
        if (apd_decode_planar(decoder, bytes, size, &view, planes, &err) == APD_OK) {
            normalise(planes, (size_t)px * (size_t)px, out);
            return;
        }
    }
    fprintf(stderr, "%s: %s\n", path, err.msg);
    abort();
}

int main(int argc, char **argv)
{
    int px = argc == 3 ? atoi(argv[1]) : 224;
    struct test_random random = {.state = argc == 3 ? strtoull(argv[2], NULL, 0) : 1};
    size_t plane = (size_t)px * (size_t)px;
    uint8_t *planes = malloc(3 * plane);
    float *out = malloc(3 * plane * sizeof *out);
    struct apd_decoder *decoder;
    struct apd_err err;
    char line[4096];
    int files = 0;
    double start_s;

    if (planes == NULL || out == NULL || apd_decoder_create(0, &decoder, &err) != APD_OK)
        abort();
    while (files < FILES_MAX && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        paths[files++] = strdup(line);
    }
    start_s = apd_now_s();
    for (int i = 0; i < files; i++)
        load(decoder, paths[i], px, &random, planes, out);
    printf("%.1f\n", files / (apd_now_s() - start_s));
    for (int i = 0; i < files; i++)
        free(paths[i]);
    apd_decoder_destroy(&decoder);
    free(planes);
    free(out);
    return 0;
}
