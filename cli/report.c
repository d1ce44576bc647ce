/* See report.h. */
#include "cli/report.h"
#include "cli/fields.h"

#include <string.h>

#define LABEL "  %-26s "

/* The newest evaluation of this kind; NULL: none. attacked: any name with "-pgd". */
static const json_t *newest(const json_t *list, const char *name, int attacked)
{
    for (size_t i = json_array_size(list); i > 0; i--) {
        const json_t *one = json_array_get(list, i - 1);
        const char *found = apd_field_text(one, "name");

        if (attacked ? strstr(found, "-pgd") != NULL : strcmp(found, name) == 0)
            return one;
    }
    return NULL;
}

static void print_accuracy(const char *label, const json_t *evaluation, FILE *out)
{
    char right[APD_NUMBER_MAX], images[APD_NUMBER_MAX];
    uint64_t n = apd_field_u64(evaluation, "images");

    if (n == 0)
        return;
    fprintf(out, LABEL "%.2f %%  (%s of %s, loss %.4f)\n", label,
            100 * apd_field(evaluation, "top1") / (double)n,
            apd_grouped(apd_field_u64(evaluation, "top1"), right), apd_grouped(n, images),
            apd_field(evaluation, "loss"));
}

static void print_receipts(const json_t *list, FILE *out)
{
    char have[APD_NUMBER_MAX], all[APD_NUMBER_MAX];

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);

        fprintf(out, LABEL "epoch %llu: %s of %s receipts%s\n", i == 0 ? "receipts" : "",
                (unsigned long long)apd_field_u64(one, "epoch") + 1,
                apd_grouped(apd_field_u64(one, "samples"), have),
                apd_grouped(apd_field_u64(one, "samples_expected"), all),
                apd_field_bool(one, "match")      ? " match"
                : apd_field_bool(one, "complete") ? " DO NOT MATCH"
                                                  : "");
    }
}

void apd_report_print(const json_t *status, const char *run_dir, double images_per_s, FILE *out)
{
    const json_t *evaluations = json_object_get(status, "evaluation");
    const json_t *checkpoint = json_object_get(status, "checkpoint");
    char number[APD_NUMBER_MAX];

    fprintf(out, "\n%s with %s: %llu epoch%s, %s steps\n", apd_field_text(status, "model"),
            apd_field_text(status, "mode"),
            (unsigned long long)apd_field_u64(status, "epochs_total"),
            apd_field_u64(status, "epochs_total") == 1 ? "" : "s",
            apd_grouped(apd_field_u64(status, "step"), number));
    if (*apd_field_text(status, "notice") != '\0')
        fprintf(out, LABEL "%s\n", "note", apd_field_text(status, "notice"));
    print_accuracy("clean accuracy, main BN", newest(evaluations, "main", 0), out);
    print_accuracy("clean accuracy, aux BN", newest(evaluations, "aux", 0), out);
    if (newest(evaluations, NULL, 1) != NULL) {
        char label[64];

        (void)snprintf(label, sizeof label, "under attack (%.32s)",
                       apd_field_text(newest(evaluations, NULL, 1), "name"));
        print_accuracy(label, newest(evaluations, NULL, 1), out);
    }
    if (images_per_s > 0)
        fprintf(out, LABEL "%s images/s\n", "training speed",
                apd_grouped((uint64_t)(images_per_s + 0.5), number));
    print_receipts(json_object_get(status, "receipt"), out);
    if (checkpoint != NULL)
        fprintf(out, LABEL "%s/%s\n" LABEL "sha256 %s\n", "checkpoint", run_dir,
                apd_field_text(checkpoint, "path"), "", apd_field_text(checkpoint, "sha256"));
    fprintf(out, LABEL "advprop status '%s'\n", "ask again with", run_dir);
}
