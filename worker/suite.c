#include "worker/suite.h"

#include "base/fs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const suite_names[] = {
    [APD_SUITE_C] = "imagenet-c",
    [APD_SUITE_R] = "imagenet-r",
    [APD_SUITE_A] = "imagenet-a",
    [APD_SUITE_STYLIZED] = "stylized",
};

/* AlexNet's errors: Hendrycks & Dietterich 2019, as in their public code. */
static const double alexnet[APD_CORRUPTIONS_MAIN] = {
    0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816,
    0.826572, 0.819324, 0.564592, 0.853204, 0.646056, 0.717840, 0.606500,
};

enum apd_suite apd_suite_named(const char *name)
{
    for (int s = APD_SUITE_C; s <= APD_SUITE_STYLIZED; s++)
        if (strcmp(suite_names[s], name) == 0)
            return (enum apd_suite)s;
    return APD_SUITE_NONE;
}

const char *apd_suite_name(enum apd_suite suite)
{
    return suite_names[suite];
}

int apd_suite_restricts(enum apd_suite suite)
{
    return suite == APD_SUITE_R || suite == APD_SUITE_A;
}

double apd_corruption_error(const struct apd_suite_c *results, int corruption)
{
    double sum = 0;
    int count = 0;

    for (int s = 0; s < APD_SEVERITIES; s++) {
        const struct apd_loss *part = &results->part[corruption][s];

        if (part->images == 0)
            continue;
        sum += 1 - (double)part->top1 / (double)part->images;
        count++;
    }
    return count > 0 ? sum / count : NAN;
}

double apd_suite_c_mean(const struct apd_suite_c *results, int *out_count)
{
    double sum = 0;

    *out_count = 0;
    for (int c = 0; c < APD_CORRUPTIONS_MAIN; c++) {
        double error = apd_corruption_error(results, c);

        if (isnan(error))
            continue;
        sum += error;
        ++*out_count;
    }
    return *out_count > 0 ? sum / *out_count : NAN;
}

static int is_complete(const struct apd_suite_c *results, int corruption)
{
    int count = 0;

    for (int s = 0; s < APD_SEVERITIES; s++)
        count += results->part[corruption][s].images > 0;
    return count == APD_SEVERITIES;
}

double apd_suite_c_mce(const struct apd_suite_c *results)
{
    double sum = 0;

    for (int c = 0; c < APD_CORRUPTIONS_MAIN; c++) {
        if (!is_complete(results, c))
            return NAN;
        sum += apd_corruption_error(results, c) / alexnet[c];
    }
    return sum / APD_CORRUPTIONS_MAIN;
}

/* ---------------------------------------------------------------- chart */

enum { ROW = 22, LEFT = 170, BAR = 400, TOP = 46 };

static void draw_bar(FILE *out, int row, const char *name, double error)
{
    int y = TOP + row * ROW;

    fprintf(out,
            "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>"
            "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"#4878a8\"/>"
            "<text x=\"%.1f\" y=\"%d\">%.1f %%</text>\n",
            LEFT - 8, y + 14, name, LEFT, y + 2, error * BAR, ROW - 6, LEFT + error * BAR + 6,
            y + 14, 100 * error);
}

enum apd_code apd_suite_c_chart(const struct apd_suite_c *results, const char *title,
                                const char *path, struct apd_err *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    int rows = 0;
    enum apd_code rc;

    if (out == NULL)
        return apd_fail(err, APD_NOMEM, "a chart");
    for (int c = 0; c < APD_CORRUPTIONS; c++)
        rows += !isnan(apd_corruption_error(results, c));
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
            "<text x=\"%d\" y=\"24\" font-size=\"15\">%s: error by corruption</text>\n",
            LEFT + BAR + 70, TOP + rows * ROW + 10, LEFT, title);
    rows = 0;
    for (int c = 0; c < APD_CORRUPTIONS; c++)
        if (!isnan(apd_corruption_error(results, c)))
            draw_bar(out, rows++, apd_corruptions[c].name, apd_corruption_error(results, c));
    fprintf(out, "</svg>\n");
    if (fclose(out) != 0)
        rc = apd_fail(err, APD_NOMEM, "a chart");
    else
        rc = apd_write_file(path, text, size, 0, err);
    free(text);
    return rc;
}
