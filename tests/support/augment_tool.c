/* The augmentation of worker/data for tests in Python. A line is a command; those that end in W H C
 * are followed by W x H x C bytes and answered by a line and as many bytes, the others by a line.
 *
 *   op NAME MAGNITUDE ROUNDS W H C   NAME is torchvision's, or Hue; answers median milliseconds
 *   image RECIPE SEED EPOCH SAMPLE OPS MAGNITUDE ERASE NOISE W H C   answers milliseconds
 *   box SEED EPOCH SAMPLE W H        answers crop, then box to erase: left top w h
 *   eval W H SHORTER CROP            answers resized w h, left top */
#include "base/clock.h"
#include "worker/data/augment_image.h"
#include "worker/data/color_ops.h"
#include "worker/data/image_ops.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 1000 };

static struct apd_image image, spare, original;
static struct apd_err err;

static void must(enum apd_code code)
{
    if (code != APD_OK) {
        fprintf(stderr, "augment_tool: %s\n", err.msg);
        exit(1);
    }
}

static void must_read(int good)
{
    if (!good) {
        fprintf(stderr, "augment_tool: not a command\n");
        exit(1);
    }
}

static size_t bytes(const struct apd_image *of)
{
    return (size_t)of->w * (size_t)of->h * (size_t)of->c;
}

static void read_image(struct apd_image *into)
{
    int w, h, c;

    must_read(scanf("%d %d %d", &w, &h, &c) == 3 && getchar() == '\n');
    must(apd_image_reserve(into, w, h, c, &err));
    must_read(fread(into->px, 1, bytes(into), stdin) == bytes(into));
}

static void copy(const struct apd_image *from, struct apd_image *into)
{
    must(apd_image_reserve(into, from->w, from->h, from->c, &err));
    memcpy(into->px, from->px, bytes(from));
}

static void answer(double ms)
{
    printf("%.6f\n", ms);
    fwrite(image.px, 1, bytes(&image), stdout);
}

static int compare_doubles(const void *x, const void *y)
{
    double p = *(const double *)x, q = *(const double *)y;

    return (p > q) - (p < q);
}

static void apply(const char *name, double magnitude)
{
    static const char *const names[APD_OPS] = {
        "Identity",  "ShearX",     "ShearY",       "TranslateX", "TranslateY",
        "Rotate",    "Brightness", "Color",        "Contrast",   "Sharpness",
        "Posterize", "Solarize",   "AutoContrast", "Equalize",   "Invert",
    };
    int op = 0;

    while (op < APD_OPS && strcmp(names[op], name) != 0)
        op++;
    must_read(op < APD_OPS || strcmp(name, "Hue") == 0);
    if (op < APD_OPS)
        must(apd_op_apply((enum apd_op)op, magnitude, &image, &spare, &err));
    else
        apd_op_hue(&image, magnitude);
}

static void command_op(void)
{
    char name[32];
    double magnitude, took[MAX_ROUNDS];
    int rounds;

    must_read(scanf("%31s %lf %d", name, &magnitude, &rounds) == 3 && rounds > 0 &&
              rounds <= MAX_ROUNDS);
    read_image(&original);
    for (int i = 0; i < rounds; i++) {
        double start;

        copy(&original, &image);
        start = apd_now_s();
        apply(name, magnitude);
        took[i] = 1000 * (apd_now_s() - start);
    }
    qsort(took, (size_t)rounds, sizeof *took, compare_doubles);
    answer(took[rounds / 2]);
}

static void command_image(void)
{
    struct apd_augment_recipe recipe = {.crop_padding_px = 4, .jitter = {0.4, 0.4, 0.4, 0.1}};
    char name[32];
    uint64_t sample;
    uint32_t epoch;
    double start;

    must_read(scanf("%31s %" SCNu64 " %" SCNu32 " %" SCNu64 " %d %d %lf %d", name, &recipe.seed,
                    &epoch, &sample, &recipe.randaugment_ops, &recipe.randaugment_magnitude,
                    &recipe.erase_probability, &recipe.erase_noise) == 8);
    must(apd_augment_recipe_set(&recipe, name, &err));
    read_image(&image);
    start = apd_now_s();
    must(apd_augment_image(&recipe, epoch, sample, &spare, &image, &err));
    answer(1000 * (apd_now_s() - start));
}

static void command_box(void)
{
    struct apd_draw_place place;
    struct apd_box crop, erase;
    int w, h;

    must_read(scanf("%" SCNu64 " %" SCNu32 " %" SCNu64 " %d %d", &place.seed, &place.epoch,
                    &place.sample, &w, &h) == 5);
    crop = apd_crop_box(&place, w, h);
    erase = apd_erase_box(&place, w, h);
    printf("%d %d %d %d  %d %d %d %d\n", crop.left, crop.top, crop.w, crop.h, erase.left, erase.top,
           erase.w, erase.h);
}

static void command_eval(void)
{
    struct apd_eval_geometry g;
    int w, h, shorter, crop;

    must_read(scanf("%d %d %d %d", &w, &h, &shorter, &crop) == 4);
    g = apd_eval_geometry(w, h, shorter, crop);
    printf("%d %d %d %d\n", g.resized_w, g.resized_h, g.left, g.top);
}

int main(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } commands[] = {
        {"op", command_op}, {"image", command_image}, {"box", command_box}, {"eval", command_eval}};
    char name[8];

    while (scanf("%7s", name) == 1) {
        size_t i = 0;

        while (i < sizeof commands / sizeof *commands && strcmp(commands[i].name, name) != 0)
            i++;
        must_read(i < sizeof commands / sizeof *commands);
        commands[i].run();
        fflush(stdout);
    }
    apd_image_fini(&image);
    apd_image_fini(&spare);
    apd_image_fini(&original);
    return 0;
}
