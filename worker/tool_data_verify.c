#include "worker/index/source.h"
#include "worker/index/verify.h"
#include "worker/tool_data.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Differences are what was asked for: all of them, on stdout. */
static void differ(void *context, const char *line)
{
    (void)context;
    puts(line);
}

static uint64_t bytes_of(const struct apd_manifest *manifest)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < apd_manifest_info(manifest)->shards; i++) {
        struct apd_manifest_shard shard;

        apd_manifest_shard(manifest, i, &shard);
        sum += shard.bytes;
    }
    return sum;
}

enum apd_code apd_tool_data_verify(struct apd_data_options *options, struct apd_err *err)
{
    struct apd_verify_settings settings = {.threads = options->threads,
                                           .reading = &options->reading,
                                           .differ = differ,
                                           .tick = apd_tool_data_tick,
                                           .context = options};
    struct apd_manifest *manifest = NULL;
    uint64_t differences;
    char *path = NULL;
    enum apd_code rc;

    APD_GO(apd_source_find_index(options->src, &path, err));
    APD_GO(apd_manifest_open(path, &manifest, err));
    settings.manifest = manifest;
    options->total_bytes = bytes_of(manifest);
    APD_GO(apd_verify(&settings, &differences, err));
    if (differences > 0)
        rc = apd_fail(err, APD_DATA, "%s: %" PRIu64 " differences", path, differences);
    else
        printf("%s: %" PRIu64 " samples are as they were indexed, digest %s\n", path,
               apd_manifest_info(manifest)->samples, apd_manifest_info(manifest)->digest);
done:
    apd_manifest_close(&manifest);
    free(path);
    return rc;
}
