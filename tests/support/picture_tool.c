/* Writes JPEG files of all kinds into a folder: picture_tool FOLDER. */
#include "tests/support/pictures.h"

#include <stdio.h>
#include <stdlib.h>

static void write_one(const char *folder, const char *name, const struct picture_jpeg *kind)
{
    char path[4096];
    size_t size;
    uint8_t *bytes = picture_make_jpeg(kind, &size);
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s-%dx%d.jpg", folder, name, kind->w, kind->h);
    file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        abort();
    free(bytes);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        struct picture_jpeg kind;
    } kinds[] = {
        {"grey", {.channels = 1}},
        {"444", {0}},
        {"422", {.h_samp = 2}},
        {"420", {.h_samp = 2, .v_samp = 2}},
        {"440", {.v_samp = 2}},
        {"411", {.h_samp = 4}},
        {"410", {.h_samp = 4, .v_samp = 2}},
        {"441", {.v_samp = 4}},
        {"311", {.h_samp = 3}},
        {"progressive", {.h_samp = 2, .v_samp = 2, .progressive = 1}},
        {"arithmetic", {.h_samp = 2, .v_samp = 2, .arithmetic = 1}},
        {"arithmetic-progressive", {.h_samp = 2, .arithmetic = 1, .progressive = 1}},
        {"restarts", {.h_samp = 2, .v_samp = 2, .restart_interval = 3}},
        {"rgb", {.rgb = 1}},
        {"cmyk", {.channels = 4}},
        {"ycck", {.channels = 4, .ycck = 1}},
        {"ycck-420", {.channels = 4, .ycck = 1, .h_samp = 2, .v_samp = 2}},
    };
    static const int sizes[][2] = {{83, 59}, {250, 187}, {1, 1}, {64, 3}};

    if (argc != 2)
        return 64;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            struct picture_jpeg kind = kinds[i].kind;

            kind.w = sizes[s][0];
            kind.h = sizes[s][1];
            write_one(argv[1], kinds[i].name, &kind);
        }
    return 0;
}
