#include "worker/index/pack.h"
#include "worker/tool_data.h"

#include <inttypes.h>
#include <stdio.h>

enum apd_code apd_tool_data_pack(struct apd_data_options *options, struct apd_err *err)
{
    struct apd_pack_settings settings = {.src = options->src,
                                         .dst = options->second,
                                         .prefix = options->prefix,
                                         .shard_samples = options->shard_samples,
                                         .threads = options->threads,
                                         .reading = &options->reading,
                                         .say = apd_tool_data_say,
                                         .tick = apd_tool_data_tick,
                                         .context = options};
    struct apd_pack_report report;
    enum apd_code rc = apd_pack(&settings, &report, err);
    double seconds = apd_tool_progress_end(&options->progress);

    if (rc == APD_CANCELED)
        (void)apd_prefix(err, "the same command goes on from here");
    if (rc != APD_OK)
        return rc;
    printf("%s: %" PRIu64 " samples in %" PRIu64 " shards; wrote %" PRIu64
           " shards in %.2f s, %.0f "
           "images/s\n",
           options->second, report.samples, report.shards, report.shards_written, seconds,
           (double)atomic_load(&options->reading.samples) / seconds);
    if (report.left_out > 0)
        printf("left out: %" PRIu64 "\n", report.left_out);
    return APD_OK;
}
