#include "worker/eval_files.h"

#include <string.h>
#include <unistd.h>

enum apd_code apd_eval_file_open(const char *path, const char *header, struct apd_eval_file *out,
                                 struct apd_err *err)
{
    *out = (struct apd_eval_file){0};
    if (path == NULL)
        return APD_OK;
    if (snprintf(out->path, sizeof out->path, "%s", path) >= (int)sizeof out->path)
        return apd_fail(err, APD_USAGE, "%.80s...: the path is too long", path);
    (void)snprintf(out->temporary, sizeof out->temporary, "%s.tmp.%ld", path, (long)getpid());
    out->file = fopen(out->temporary, "we");
    if (out->file == NULL)
        return apd_fail_errno(err, "creating %s", out->temporary);
    fprintf(out->file, "%s\n", header);
    return APD_OK;
}

enum apd_code apd_eval_file_finish(struct apd_eval_file *file, struct apd_err *err)
{
    int failed;

    if (file->file == NULL)
        return APD_OK;
    failed = ferror(file->file) != 0;
    failed |= fclose(file->file) != 0;
    file->file = NULL;
    if (!failed && rename(file->temporary, file->path) == 0)
        return APD_OK;
    (void)apd_fail_errno(err, "writing %s", file->path);
    (void)unlink(file->temporary);
    return err->code;
}

void apd_eval_file_drop(struct apd_eval_file *file)
{
    if (file->file == NULL)
        return;
    (void)fclose(file->file);
    (void)unlink(file->temporary);
    file->file = NULL;
}

/* A field; quoted where it has to be (RFC 4180). */
static void put_text(FILE *out, const char *text)
{
    if (strpbrk(text, ",\"\r\n") == NULL) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

void apd_eval_file_predictions(struct apd_eval_file *file, const char *bn, const char *part,
                               const struct apd_dataset *dataset,
                               const struct apd_prediction *prediction, uint64_t images)
{
    char name[4096];

    for (uint64_t i = 0; file->file != NULL && i < images; i++) {
        const struct apd_prediction *one = &prediction[i];

        apd_dataset_sample(dataset, i, name, sizeof name);
        fprintf(file->file, "%s,%s,", bn, part);
        put_text(file->file, name);
        if (one->label < 0) /* not an image that can be used */
            fprintf(file->file, ",,,,,\n");
        else
            fprintf(file->file, ",%d,%d,%d,%d,%.9g\n", one->label, one->predicted, one->top1,
                    one->top5, one->loss);
    }
}

void apd_eval_file_part(struct apd_eval_file *file, const char *suite, const char *bn,
                        const char *part, const struct apd_loss *loss)
{
    double n = (double)loss->images;

    if (file->file == NULL)
        return;
    fprintf(file->file, "%s,%s,%s,%lld,%lld,%lld,%.9g,%.9g\n", suite, bn, part,
            (long long)loss->images, (long long)loss->top1, (long long)loss->top5,
            1 - (double)loss->top1 / n, loss->ce_sum / n);
}
