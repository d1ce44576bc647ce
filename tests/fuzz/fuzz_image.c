#include "tests/fuzz/fuzz_image.h"

#include "worker/data/decode.h"

#include <string.h>

enum { MAX_PX = 1 << 18 };

static const struct fuzz_file *sound;
static int sound_count;
static void (*mend_file)(unsigned char *bytes, size_t size);
static struct apd_decoder *decoder;
static struct apd_image image;

static int below(struct test_random *random, int n)
{
    return (int)test_below(random, (uint64_t)n);
}

static struct apd_view random_view(struct test_random *random, const struct apd_image_info *info)
{
    struct apd_view view = {.flip = below(random, 2)};

    if (below(random, 2)) {
        view.box.w = 1 + below(random, info->w);
        view.box.h = 1 + below(random, info->h);
        view.box.x = below(random, info->w - view.box.w + 1);
        view.box.y = below(random, info->h - view.box.h + 1);
    }
    if (below(random, 4)) {
        view.w = 1 + below(random, 70);
        view.h = 1 + below(random, 70);
        view.window.w = 1 + below(random, view.w);
        view.window.h = 1 + below(random, view.h);
        view.window.x = below(random, view.w - view.window.w + 1);
        view.window.y = below(random, view.h - view.window.h + 1);
    }
    return view;
}

static void check_refusal(const struct apd_err *err)
{
    fuzz_check(err->code == APD_DATA && err->msg[0] != '\0', "unclear error");
}

/* `bytes` ends where its memory ends. */
static void feed(struct test_random *random, const unsigned char *bytes, size_t size)
{
    struct apd_image_info info;
    struct apd_err err = {0};
    struct apd_view view;
    int w, h;

    if (apd_image_probe(bytes, size, &info, &err) != APD_OK) {
        check_refusal(&err);
        return;
    }
    fuzz_check(info.w > 0 && info.h > 0, "an image without pixels");
    if ((uint64_t)info.w * (uint64_t)info.h > MAX_PX)
        view = (struct apd_view){.w = 8, .h = 8};
    else
        view = random_view(random, &info);
    if (apd_decode(decoder, bytes, size, &view, &image, &err) != APD_OK) {
        check_refusal(&err);
        return;
    }
    fuzz_check((uint64_t)info.w * (uint64_t)info.h <= MAX_PX, "an image over the limit");
    apd_view_size(&view, info.w, info.h, &w, &h);
    fuzz_check(image.w == w && image.h == h, "another size than the view's");
}

static void one(struct test_random *random)
{
    const struct fuzz_file *file = &sound[below(random, sound_count)];
    unsigned char *damaged = malloc(2 * file->size + 64), *exact;
    size_t size;

    fuzz_check(damaged != NULL, "no memory");
    size = fuzz_damage(random, file->bytes, file->size, damaged);
    if (mend_file != NULL && below(random, 2))
        mend_file(damaged, size);
    exact = realloc(damaged, size > 0 ? size : 1);
    fuzz_check(exact != NULL, "no memory");
    feed(random, exact, size);
    free(exact);
}

int fuzz_images(int argc, char **argv, const struct fuzz_file *files, int count,
                void (*mend)(unsigned char *bytes, size_t size))
{
    struct apd_err err;
    int status;

    sound = files;
    sound_count = count;
    mend_file = mend;
    fuzz_check(apd_decoder_create(MAX_PX, &decoder, &err) == APD_OK, "no decoder");
    status = fuzz_main(argc, argv, one);
    apd_decoder_destroy(&decoder);
    apd_image_fini(&image);
    for (int i = 0; i < count; i++)
        free(files[i].bytes);
    return status;
}
