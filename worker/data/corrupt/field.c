#include "worker/data/corrupt/field.h"

#include <stdlib.h>

enum apd_code apd_field_reserve(struct apd_field *field, int w, int h, int c, struct apd_err *err)
{
    size_t count = (size_t)w * (size_t)h * (size_t)c;

    if (count > field->capacity) {
        double *grown = realloc(field->v, count * sizeof *grown);

        if (grown == NULL)
            return apd_fail(err, APD_NOMEM, "%d x %d x %d numbers", w, h, c);
        field->v = grown;
        field->capacity = count;
    }
    field->w = w;
    field->h = h;
    field->c = c;
    return APD_OK;
}

void apd_field_fini(struct apd_field *field)
{
    free(field->v);
    *field = (struct apd_field){0};
}

enum apd_code apd_field_load(const struct apd_image *image, struct apd_field *out,
                             struct apd_err *err)
{
    APD_TRY(apd_field_reserve(out, image->w, image->h, image->c, err));
    for (size_t i = 0; i < apd_field_count(out); i++)
        out->v[i] = image->px[i] / 255.0;
    return APD_OK;
}

void apd_field_store(const struct apd_field *field, struct apd_image *image)
{
    for (size_t i = 0; i < apd_field_count(field); i++)
        image->px[i] = apd_field_byte(field->v[i]);
}

void apd_field_quantise(struct apd_field *field)
{
    for (size_t i = 0; i < apd_field_count(field); i++)
        field->v[i] = apd_field_byte(field->v[i]) / 255.0;
}

enum apd_code apd_field_normal(struct apd_field *field, int w, int h, int c, double mean,
                               double sigma, struct apd_words *words, struct apd_err *err)
{
    double pair[2] = {0};

    APD_TRY(apd_field_reserve(field, w, h, c, err));
    for (size_t i = 0; i < apd_field_count(field); i++) {
        if (i % 2 == 0)
            apd_words_normal(words, pair);
        field->v[i] = mean + sigma * pair[i % 2];
    }
    return APD_OK;
}
