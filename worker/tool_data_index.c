#include "worker/index/index.h"
#include "worker/tool_data.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct index_tool {
    struct apd_data_options *options;
    struct apd_index_report report;
};

static void tick(void *context)
{
    struct index_tool *tool = context;

    tool->options->total_bytes = tool->report.total_bytes;
    apd_tool_data_tick(tool->options);
}

static void say(void *context, const char *line)
{
    struct index_tool *tool = context;

    apd_tool_data_say(tool->options, line);
}

static void print_report(const struct apd_index_report *report, uint64_t read, uint64_t read_bytes,
                         double seconds)
{
    printf("%s: %" PRIu64 " samples, %" PRIu32 " classes, %" PRIu32 " shards, %" PRIu64 " bytes\n",
           report->path, report->samples, report->classes, report->shards, report->bytes);
    printf("digest %s\n", report->digest);
    printf("read %" PRIu64 " images in %" PRIu32
           " shards in %.2f s: %.0f images/s, %.1f MB/s; %" PRIu32 " shards were known\n",
           read, report->shards_read, seconds, (double)read / seconds,
           1e-6 * (double)read_bytes / seconds, report->shards - report->shards_read);
    if (report->hidden + report->other > 0)
        printf("passed over: %" PRIu64 " hidden, %" PRIu64 " of no image's name\n", report->hidden,
               report->other);
    if (report->left_out > 0)
        printf("left out: %" PRIu64 "\n", report->left_out);
}

enum apd_code apd_tool_data_index(struct apd_data_options *options, struct apd_err *err)
{
    struct index_tool tool = {.options = options};
    struct apd_index_settings settings = {.src = options->src,
                                          .out = options->out,
                                          .kind = options->kind,
                                          .threads = options->threads,
                                          .reading = &options->reading,
                                          .say = say,
                                          .tick = tick,
                                          .context = &tool};
    enum apd_code rc = apd_index(&settings, &tool.report, err);
    double seconds = apd_tool_progress_end(&options->progress);

    if (rc == APD_OK)
        print_report(&tool.report, atomic_load(&options->reading.samples),
                     atomic_load(&options->reading.bytes), seconds);
    else if (rc == APD_CANCELED)
        (void)apd_prefix(err, "the same command goes on from here");
    free(tool.report.path);
    return rc;
}
