/* The worker program's tools for data sets: `advprop data index`, verify, stat, pack, cat and
 * corrupt are these. No configuration, no MPI, no coordinator. */
#ifndef APD_WORKER_TOOL_DATA_H
#define APD_WORKER_TOOL_DATA_H

#include "base/err.h"
#include "worker/index/corrupt_set.h"
#include "worker/index/shard_content.h"
#include "worker/tool_progress.h"

#include <stdint.h>

struct apd_data_options {
    const char *src;
    const char *second; /* pack, corrupt: DST; cat: the number of the sample; otherwise NULL */
    const char *out;    /* index: the manifest; cat: the file; NULL: not given */
    const char *prefix; /* pack; NULL: not given */
    int kind;           /* enum apd_manifest_kind, 0: not given */
    unsigned threads;
    uint32_t shard_samples;
    int json;
    const char *corruption, *severity; /* corrupt: lists, as they were typed */
    enum apd_corrupt_split split;
    int size_px, resize_px, channels, jpeg_quality; /* corrupt; 0: not given */
    uint64_t seed, limit;                           /* corrupt; limit 0: all */
    /* What the tools of several threads share with their progress. */
    struct apd_reading reading;
    struct apd_tool_progress progress;
    uint64_t total_bytes; /* that are to be read; 0: unknown */
};

/* Whether the command line is one of these tools. */
int apd_tool_data_asked(int argc, char **argv);

/* Runs it; the exit status. TERM and INT end it in order, with 75. */
int apd_tool_data_main(int argc, char **argv);

/* One a file: tool_data_*.c. Results go to stdout, messages to stderr. */
APD_MUST_USE enum apd_code apd_tool_data_index(struct apd_data_options *options,
                                               struct apd_err *err);
APD_MUST_USE enum apd_code apd_tool_data_verify(struct apd_data_options *options,
                                                struct apd_err *err);
APD_MUST_USE enum apd_code apd_tool_data_stat(struct apd_data_options *options,
                                              struct apd_err *err);
APD_MUST_USE enum apd_code apd_tool_data_pack(struct apd_data_options *options,
                                              struct apd_err *err);
APD_MUST_USE enum apd_code apd_tool_data_cat(struct apd_data_options *options, struct apd_err *err);
APD_MUST_USE enum apd_code apd_tool_data_corrupt(struct apd_data_options *options,
                                                 struct apd_err *err);

/* Callbacks of worker/index/; context: the options. */
void apd_tool_data_tick(void *options);
void apd_tool_data_say(void *options, const char *line);

#endif
