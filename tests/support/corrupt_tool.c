/* The corruptions of worker/data for tests in Python. A line is a command,
 *
 *   NAME SEVERITY SEED SAMPLE W H C
 *
 * followed by W x H x C bytes; the answer is a line with the milliseconds that it took, and as many
 * bytes. */
#include "base/clock.h"
#include "worker/data/corrupt/corrupt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct apd_corrupt_scratch scratch;
static struct apd_image image;
static struct apd_err err;

static void must(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "corrupt_tool: %s\n", what);
        exit(1);
    }
}

static int number_of(const char *name)
{
    int number = 0;

    while (number < APD_CORRUPTIONS && strcmp(apd_corruptions[number].name, name) != 0)
        number++;
    must(number < APD_CORRUPTIONS, "no such corruption");
    return number;
}

int main(void)
{
    uint64_t seed, sample;
    int severity, w, h, c;
    char name[32];

    while (scanf("%31s %d %" SCNu64 " %" SCNu64 " %d %d %d", name, &severity, &seed, &sample, &w,
                 &h, &c) == 7) {
        size_t bytes = (size_t)w * (size_t)h * (size_t)c;
        double start;

        must(getchar() == '\n', "not a command");
        must(apd_image_reserve(&image, w, h, c, &err) == APD_OK, err.msg);
        must(fread(image.px, 1, bytes, stdin) == bytes, "the image is cut short");
        start = apd_now_s();
        must(apd_corrupt(number_of(name), severity, seed, sample, &scratch, &image, &err) == APD_OK,
             err.msg);
        printf("%.6f\n", 1000 * (apd_now_s() - start));
        fwrite(image.px, 1, bytes, stdout);
        fflush(stdout);
    }
    apd_corrupt_scratch_fini(&scratch);
    apd_image_fini(&image);
    return 0;
}
