#include "worker/data/sample_read.h"
#include "worker/data/tar.h"
#include "worker/index/source.h"
#include "worker/index/webdataset.h"
#include "worker/show.h"
#include "worker/tool_data.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum apd_code parse_sample(const char *text, uint64_t samples, uint64_t *out,
                                  struct apd_err *err)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value >= samples)
        return apd_fail(err, APD_USAGE, "sample \"%s\": expected a number below %" PRIu64, text,
                        samples);
    *out = value;
    return APD_OK;
}

/* Key and name of the tar member: the manifest does not have them. */
static enum apd_code print_member(const char *root, const struct apd_manifest_sample *sample,
                                  struct apd_err *err)
{
    const struct apd_tar_member *member;
    struct apd_tar *tar = NULL;
    enum apd_wds_role role;
    size_t key_size;
    char path[PATH_MAX];
    enum apd_code rc;

    (void)snprintf(path, sizeof path, "%s/%s", root, sample->path);
    APD_TRY(apd_tar_open(path, NULL, &tar, err));
    do
        APD_GO(apd_tar_next(tar, &member, err));
    while (member != NULL && member->offset != sample->offset);
    if (member != NULL && apd_wds_name(member->name, &key_size, &role))
        fprintf(stderr, "key     %.*s\nmember  %s\n", (int)key_size, member->name, member->name);
done:
    apd_tar_close(&tar);
    return rc;
}

static enum apd_code print_facts(const struct apd_manifest *manifest, uint64_t number,
                                 const struct apd_manifest_sample *sample, struct apd_err *err)
{
    const struct apd_manifest_info *info = apd_manifest_info(manifest);

    fprintf(stderr, "sample  %" PRIu64 "\nlabel   %d (%s)\nfile    %s/%s\n", number, sample->label,
            apd_manifest_class(manifest, (uint32_t)sample->label), info->root, sample->path);
    fprintf(stderr, "shard   %u\noffset  %" PRIu64 "\nbytes   %u\ncrc32c  %08x\n", sample->shard,
            sample->offset, sample->size, sample->crc);
    return info->kind == APD_MANIFEST_TAR ? print_member(info->root, sample, err) : APD_OK;
}

enum apd_code apd_tool_data_cat(struct apd_data_options *options, struct apd_err *err)
{
    struct apd_manifest *manifest = NULL;
    struct apd_sample_bytes bytes = {0};
    struct apd_manifest_sample sample;
    uint64_t number = 0;
    char *path = NULL;
    enum apd_code rc;

    APD_GO(apd_source_find_index(options->src, &path, err));
    APD_GO(apd_manifest_open(path, &manifest, err));
    APD_GO(parse_sample(options->second, apd_manifest_info(manifest)->samples, &number, err));
    APD_GO(apd_sample_read(manifest, number, 0, &bytes, &sample, err));
    APD_GO(print_facts(manifest, number, &sample, err));
    rc = apd_show_bytes(options->out, bytes.data, bytes.size, err);
done:
    apd_sample_bytes_fini(&bytes);
    apd_manifest_close(&manifest);
    free(path);
    return rc;
}
