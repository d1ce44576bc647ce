#include "worker/index/duplicates.h"
#include "worker/index/source.h"
#include "worker/index/survey.h"
#include "worker/tool_data.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { GROUPS_SHOWN = 10 };

struct duplicates {
    const struct apd_manifest *manifest;
    uint64_t groups, samples;
    uint64_t mixed;                  /* groups with more than one label */
    json_t *list;                    /* of groups, for --json; NULL otherwise */
    uint64_t shown[GROUPS_SHOWN][2]; /* two samples of the first groups */
};

static void take_group(void *context, const uint64_t *sample, size_t count)
{
    struct duplicates *found = context;
    json_t *group = found->list != NULL ? json_array() : NULL;
    int32_t label = -1;
    int mixed = 0;

    for (size_t i = 0; i < count; i++) {
        struct apd_manifest_sample record;

        apd_manifest_sample(found->manifest, sample[i], &record);
        mixed = mixed || (label >= 0 && record.label != label);
        label = record.label;
        if (group != NULL)
            (void)json_array_append_new(group, json_integer((json_int_t)sample[i]));
    }
    if (group != NULL)
        (void)json_array_append_new(found->list, group);
    if (found->groups < GROUPS_SHOWN) {
        found->shown[found->groups][0] = sample[0];
        found->shown[found->groups][1] = sample[1];
    }
    found->groups++;
    found->samples += count;
    found->mixed += (uint64_t)mixed;
}

/* ---------------------------------------------------------------- as text */

static void print_spread(const char *name, struct apd_spread spread, const char *rest)
{
    printf("%-11s %" PRIu32 " to %" PRIu32 ", median %" PRIu32 "%s\n", name, spread.min, spread.max,
           spread.median, rest);
}

static void print_counts(const struct apd_survey *survey)
{
    const char *between = "";

    printf("%-11s ", "formats");
    for (int i = 0; i < APD_SURVEY_CODECS; i++)
        if (survey->codec[i] > 0) {
            printf("%s%s %" PRIu64, between, apd_codec_name((enum apd_codec)i), survey->codec[i]);
            between = ", ";
        }
    between = "";
    printf("\n%-11s ", "colours");
    for (int i = 0; i < APD_SURVEY_COLOURS; i++)
        if (survey->colour[i] > 0) {
            printf("%s%s %" PRIu64, between, apd_colour_name((enum apd_colour)i),
                   survey->colour[i]);
            between = ", ";
        }
    printf("\n");
    if (survey->unknown > 0)
        printf("%-11s %" PRIu64 " (no header of JPEG, PNG or WebP)\n", "unknown", survey->unknown);
}

static void print_duplicates(const struct duplicates *found)
{
    printf("%-11s %" PRIu64 " images in %" PRIu64 " groups, %" PRIu64 " of them with two labels\n",
           "duplicates", found->samples, found->groups, found->mixed);
    for (uint64_t i = 0; i < found->groups && i < GROUPS_SHOWN; i++)
        printf("%-11s samples %" PRIu64 " and %" PRIu64 "\n", "", found->shown[i][0],
               found->shown[i][1]);
}

static void print_text(const char *path, const struct apd_manifest *manifest,
                       const struct apd_survey *survey, const struct duplicates *found)
{
    const struct apd_manifest_info *info = apd_manifest_info(manifest);
    char total[64];

    printf("%-11s %s\n%-11s %s\n", "manifest", path, "kind",
           info->kind == APD_MANIFEST_TAR ? "tar shards" : "folder of images");
    printf("%-11s %s\n%-11s %" PRIu64 "\n%-11s %" PRIu32 "\n%-11s %" PRIu32 "\n%-11s %" PRIu64 "\n",
           "digest", info->digest, "samples", info->samples, "classes", info->classes, "shards",
           info->shards, "left out", info->left_out);
    (void)snprintf(total, sizeof total, ", together %" PRIu64, survey->total_bytes);
    print_spread("bytes", survey->bytes, total);
    print_spread("width", survey->w, "");
    print_spread("height", survey->h, "");
    print_counts(survey);
    print_duplicates(found);
    print_spread("per class", survey->class_size, "");
    printf("\nclass  samples  name\n");
    for (uint32_t i = 0; i < info->classes; i++)
        printf("%5" PRIu32 "  %7" PRIu64 "  %s\n", i, survey->class_samples[i],
               apd_manifest_class(manifest, i));
}

/* ---------------------------------------------------------------- as JSON */

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *spread_json(struct apd_spread spread)
{
    return json_pack("{s:I, s:I, s:I}", "min", (json_int_t)spread.min, "median",
                     (json_int_t)spread.median, "max", (json_int_t)spread.max);
}

/* File names need not be UTF-8, which JSON is: such a class has no name there. */
static json_t *class_json(const struct apd_manifest *manifest, uint32_t label, uint64_t samples)
{
    json_t *name = json_string(apd_manifest_class(manifest, label));

    return json_pack("{s:I, s:o, s:I}", "label", (json_int_t)label, "name",
                     name != NULL ? name : json_null(), "samples", (json_int_t)samples);
}

static enum apd_code print_json(const struct apd_manifest *manifest,
                                const struct apd_survey *survey, const struct duplicates *found,
                                struct apd_err *err)
{
    const struct apd_manifest_info *info = apd_manifest_info(manifest);
    json_t *root = json_object(), *codecs = json_object(), *colours = json_object();
    json_t *classes = json_array();
    int failed;

    for (int i = 0; i < APD_SURVEY_CODECS; i++)
        json_object_set_new(codecs, apd_codec_name((enum apd_codec)i), number(survey->codec[i]));
    for (int i = 0; i < APD_SURVEY_COLOURS; i++)
        json_object_set_new(colours, apd_colour_name((enum apd_colour)i),
                            number(survey->colour[i]));
    for (uint32_t i = 0; i < info->classes; i++)
        json_array_append_new(classes, class_json(manifest, i, survey->class_samples[i]));
    json_object_set_new(root, "kind",
                        json_string(info->kind == APD_MANIFEST_TAR ? "tar" : "folder"));
    json_object_set_new(root, "digest", json_string(info->digest));
    json_object_set_new(root, "samples", number(info->samples));
    json_object_set_new(root, "shards", number(info->shards));
    json_object_set_new(root, "left_out", number(info->left_out));
    json_object_set_new(root, "total_bytes", number(survey->total_bytes));
    json_object_set_new(root, "bytes", spread_json(survey->bytes));
    json_object_set_new(root, "width_px", spread_json(survey->w));
    json_object_set_new(root, "height_px", spread_json(survey->h));
    json_object_set_new(root, "formats", codecs);
    json_object_set_new(root, "colours", colours);
    json_object_set_new(root, "unknown", number(survey->unknown));
    json_object_set_new(root, "duplicates", json_incref(found->list));
    json_object_set_new(root, "classes", classes);
    failed = json_dumpf(root, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(root);
    return failed == 0 ? APD_OK : apd_fail_errno(err, "writing JSON");
}

enum apd_code apd_tool_data_stat(struct apd_data_options *options, struct apd_err *err)
{
    struct apd_survey_settings settings = {.threads = options->threads,
                                           .reading = &options->reading,
                                           .say = apd_tool_data_say,
                                           .tick = apd_tool_data_tick,
                                           .context = options};
    struct apd_manifest *manifest = NULL;
    struct apd_survey survey = {0};
    struct duplicates found = {0};
    char *path = NULL;
    enum apd_code rc;

    APD_GO(apd_source_find_index(options->src, &path, err));
    APD_GO(apd_manifest_open(path, &manifest, err));
    settings.manifest = found.manifest = manifest;
    found.list = options->json ? json_array() : NULL;
    APD_GO(apd_survey(&settings, &survey, err));
    APD_GO(apd_duplicates(manifest, take_group, &found, err));
    (void)apd_tool_progress_end(&options->progress);
    if (options->json)
        rc = print_json(manifest, &survey, &found, err);
    else
        print_text(path, manifest, &survey, &found);
done:
    json_decref(found.list);
    apd_survey_fini(&survey);
    apd_manifest_close(&manifest);
    free(path);
    return rc;
}
