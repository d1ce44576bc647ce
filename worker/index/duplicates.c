#include "worker/index/duplicates.h"

#include "worker/data/sample_read.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    uint32_t size, crc;
    uint64_t sample;
};

/* Of candidates of one size and CRC. */
struct confirmed {
    char sha256[APD_SHA256_HEX];
    uint64_t sample;
};

static int order_of(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int by_size_and_crc(const void *a, const void *b)
{
    const struct candidate *left = a, *right = b;

    if (left->size != right->size)
        return order_of(left->size, right->size);
    if (left->crc != right->crc)
        return order_of(left->crc, right->crc);
    return order_of(left->sample, right->sample);
}

static int by_content(const void *a, const void *b)
{
    const struct confirmed *left = a, *right = b;
    int order = memcmp(left->sha256, right->sha256, sizeof left->sha256);

    return order != 0 ? order : order_of(left->sample, right->sample);
}

static enum apd_code hash_all(const struct apd_manifest *manifest,
                              const struct candidate *candidate, size_t count,
                              struct confirmed *out, struct apd_err *err)
{
    struct apd_sample_bytes bytes = {0};
    enum apd_code rc = APD_OK;

    for (size_t i = 0; i < count; i++) {
        APD_GO(apd_sample_read(manifest, candidate[i].sample, 0, &bytes, NULL, err));
        APD_GO(apd_sha256_of(bytes.data, bytes.size, out[i].sha256, err));
        out[i].sample = candidate[i].sample;
    }
    qsort(out, count, sizeof *out, by_content);
done:
    apd_sample_bytes_fini(&bytes);
    return rc;
}

static enum apd_code confirm(const struct apd_manifest *manifest, const struct candidate *candidate,
                             size_t count,
                             void (*group)(void *context, const uint64_t *sample, size_t count),
                             void *context, struct apd_err *err)
{
    struct confirmed *found = calloc(count, sizeof *found);
    uint64_t *sample = calloc(count, sizeof *sample);
    enum apd_code rc;

    if (found == NULL || sample == NULL) {
        rc = apd_fail(err, APD_NOMEM, "%zu equal images", count);
        goto done;
    }
    APD_GO(hash_all(manifest, candidate, count, found, err));
    for (size_t from = 0, n; from < count; from += n) {
        for (n = 0; from + n < count; n++) {
            if (memcmp(found[from].sha256, found[from + n].sha256, APD_SHA256_HEX) != 0)
                break;
            sample[n] = found[from + n].sample;
        }
        if (n > 1)
            group(context, sample, n);
    }
done:
    free(found);
    free(sample);
    return rc;
}

enum apd_code apd_duplicates(const struct apd_manifest *manifest,
                             void (*group)(void *context, const uint64_t *sample, size_t count),
                             void *context, struct apd_err *err)
{
    uint64_t samples = apd_manifest_info(manifest)->samples;
    struct candidate *candidate = malloc((samples + 1) * sizeof *candidate);
    enum apd_code rc = APD_OK;

    if (candidate == NULL)
        return apd_fail(err, APD_NOMEM, "%" PRIu64 " samples", samples);
    for (uint64_t i = 0; i < samples; i++) {
        struct apd_manifest_sample sample;

        apd_manifest_sample(manifest, i, &sample);
        candidate[i] = (struct candidate){sample.size, sample.crc, i};
    }
    qsort(candidate, samples, sizeof *candidate, by_size_and_crc);
    for (uint64_t from = 0, n; from < samples; from += n) {
        for (n = 1; from + n < samples && candidate[from].size == candidate[from + n].size &&
                    candidate[from].crc == candidate[from + n].crc;)
            n++;
        if (n > 1)
            APD_GO(confirm(manifest, candidate + from, n, group, context, err));
    }
done:
    free(candidate);
    return rc;
}
