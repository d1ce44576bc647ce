/* What is in a data set: numbers of `advprop data stat`. Sizes and labels come from the manifest,
 * widths, heights and colours from the first bytes of every image. */
#ifndef APD_WORKER_INDEX_SURVEY_H
#define APD_WORKER_INDEX_SURVEY_H

#include "base/err.h"
#include "worker/data/manifest.h"
#include "worker/data/probe.h"
#include "worker/index/shard_content.h"

enum { APD_SURVEY_CODECS = APD_CODEC_WEBP + 1, APD_SURVEY_COLOURS = APD_COLOUR_YCCK + 1 };

/* Of count = 0 all are 0. */
struct apd_spread {
    uint32_t min, median, max; /* median: the lower one of an even count */
};

struct apd_survey {
    uint64_t *class_samples; /* [classes] */
    struct apd_spread class_size, bytes, w, h;
    uint64_t total_bytes;
    uint64_t codec[APD_SURVEY_CODECS], colour[APD_SURVEY_COLOURS]; /* images of each */
    uint64_t unknown; /* images whose header tells nothing; not in w, h, codec, colour */
};

struct apd_survey_settings {
    const struct apd_manifest *manifest;
    unsigned threads;
    struct apd_reading *reading;
    void (*say)(void *context, const char *line); /* an image's header tells nothing */
    void (*tick)(void *context);
    void *context;
};

/* On failure the caller ends *out, too. */
APD_MUST_USE enum apd_code apd_survey(const struct apd_survey_settings *settings,
                                      struct apd_survey *out, struct apd_err *err);
void apd_survey_fini(struct apd_survey *survey);

#endif
