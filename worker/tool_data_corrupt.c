#include "worker/data/corrupt/corrupt.h"
#include "worker/index/corrupt_set.h"
#include "worker/tool_data.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { WORD_MAX = 32 };

struct corrupt_tool {
    struct apd_data_options *options;
    struct apd_corrupt_report report;
};

static void say(void *context, const char *line)
{
    struct corrupt_tool *tool = context;

    apd_tool_data_say(tool->options, line);
}

static void tick(void *context)
{
    struct corrupt_tool *tool = context;

    tool->options->total_bytes = tool->report.total_bytes;
    apd_tool_data_tick(tool->options);
}

/* Cuts the first word off a list with commas; 0 at its end. */
static int next_word(const char **list, char out[WORD_MAX])
{
    size_t size = strcspn(*list, ",");

    if (**list == '\0')
        return 0;
    (void)snprintf(out, WORD_MAX, "%.*s", (int)size, *list);
    *list += size + ((*list)[size] == ',');
    return 1;
}

/* Bits of what a word names, 0 if nothing. */
static uint32_t corruption_bits(const char *word)
{
    if (strcmp(word, "all") == 0)
        return (1u << APD_CORRUPTIONS) - 1;
    if (strcmp(word, "15") == 0)
        return (1u << APD_CORRUPTIONS_MAIN) - 1;
    for (int k = 0; k < APD_CORRUPTIONS; k++)
        if (strcmp(word, apd_corruptions[k].name) == 0)
            return 1u << k;
    return 0;
}

/* "3" or "1-5" */
static uint32_t severity_bits(const char *word)
{
    int range = strlen(word) == 3 && word[1] == '-', from = word[0] - '0',
        to = range ? word[2] - '0' : from;

    if ((!range && strlen(word) != 1) || from < 1 || from > to || to > APD_SEVERITIES)
        return 0;
    return (2u << to) - (1u << from);
}

/* All bits of a list, 0 if one of its words has none; `word` is then that one. */
static uint32_t list_bits(const char *list, uint32_t (*bits_of)(const char *word),
                          char word[WORD_MAX])
{
    uint32_t bits = 0;

    word[0] = '\0';
    while (next_word(&list, word)) {
        if (bits_of(word) == 0)
            return 0;
        bits |= bits_of(word);
    }
    return bits;
}

static enum apd_code parse_corruptions(const char *list, uint32_t *out, struct apd_err *err)
{
    char word[WORD_MAX], names[400] = "";

    *out = list_bits(list, corruption_bits, word);
    if (*out != 0)
        return APD_OK;
    for (int k = 0; k < APD_CORRUPTIONS; k++)
        (void)snprintf(names + strlen(names), sizeof names - strlen(names), " %s",
                       apd_corruptions[k].name);
    return apd_fail(err, APD_USAGE, "--corruption: no \"%s\" among%s; or say 15 or all", word,
                    names);
}

static enum apd_code parse_severities(const char *list, uint32_t *out, struct apd_err *err)
{
    char word[WORD_MAX];

    *out = list_bits(list, severity_bits, word);
    if (*out != 0)
        return APD_OK;
    return apd_fail(err, APD_USAGE,
                    "--severity: expected numbers from 1 to %d as in 1-5 or 1,3, found \"%s\"",
                    APD_SEVERITIES, list);
}

enum apd_code apd_tool_data_corrupt(struct apd_data_options *options, struct apd_err *err)
{
    struct corrupt_tool tool = {.options = options};
    struct apd_corrupt_settings settings = {.src = options->src,
                                            .dst = options->second,
                                            .split = options->split,
                                            .size_px = options->size_px,
                                            .resize_px = options->resize_px,
                                            .channels = options->channels,
                                            .jpeg_quality = options->jpeg_quality,
                                            .seed = options->seed,
                                            .limit = options->limit,
                                            .threads = options->threads,
                                            .reading = &options->reading,
                                            .say = say,
                                            .tick = tick,
                                            .context = &tool};
    enum apd_code rc;
    double seconds;

    APD_TRY(parse_corruptions(options->corruption, &settings.corruptions, err));
    APD_TRY(parse_severities(options->severity, &settings.severities, err));
    rc = apd_corrupt_set(&settings, &tool.report, err);
    seconds = apd_tool_progress_end(&options->progress);
    if (rc == APD_CANCELED)
        (void)apd_prefix(err, "the same command goes on from here");
    if (rc != APD_OK)
        return rc;
    printf("%s: wrote %" PRIu64 " images in %.2f s, %.0f images/s; %" PRIu64 " were there\n",
           options->second, tool.report.written, seconds, (double)tool.report.written / seconds,
           tool.report.kept);
    if (tool.report.bad > 0)
        printf("left out: %" PRIu64 " samples that cannot be used\n", tool.report.bad);
    return APD_OK;
}
