/* Damaged manifests, half of them with checksums made right again: refused with a message, or
 * everything in them can be read and is in its bounds. */
#include "tests/fuzz/fuzz.h"
#include "tests/support/scratch.h"
#include "worker/data/bytes.h"
#include "worker/data/manifest_format.h"
#include "worker/index/manifest_write.h"

#include <string.h>

enum { SAMPLES = 6, CLASSES = 2, SHARDS = 3 };

static const char *path;
static unsigned char *sound[2], *damaged;
static size_t sound_size[2];

static void make_sound(int which)
{
    const struct apd_manifest_info info = {.kind =
                                               which == 0 ? APD_MANIFEST_TAR : APD_MANIFEST_FOLDER,
                                           .samples = SAMPLES,
                                           .classes = CLASSES,
                                           .shards = SHARDS,
                                           .root = "."};
    struct apd_manifest_shard shard = {.path = "x.tar", .samples = 2, .bytes = 10000};
    struct apd_manifest_sample sample = {.path = "a/b.jpg", .offset = 512, .size = 100, .label = 1};
    struct apd_manifest_writer *writer = NULL;
    struct apd_err err;

    memset(shard.sha256, 'a', sizeof shard.sha256);
    fuzz_check(apd_manifest_create(path, &info, &writer, &err) == APD_OK, "no manifest");
    for (int i = 0; i < CLASSES; i++)
        fuzz_check(apd_manifest_put_class(writer, "cat", &err) == APD_OK, "no class");
    for (int i = 0; i < SHARDS; i++)
        fuzz_check(apd_manifest_put_shard(writer, &shard, &err) == APD_OK, "no shard");
    for (int i = 0; i < SAMPLES; i++)
        fuzz_check(apd_manifest_put_sample(writer, &sample, &err) == APD_OK, "no sample");
    fuzz_check(apd_manifest_commit(writer, NULL, &err) == APD_OK, "no manifest");
    apd_manifest_writer_destroy(&writer);
    sound[which] = scratch_read(path, &sound_size[which]);
}

/* By the sizes that the header declares, as far as they fit. */
static void forge(unsigned char *bytes, size_t size)
{
    uint64_t sizes[APD_SECTIONS], at = APD_MANIFEST_HEADER;

    if (size < APD_MANIFEST_HEADER)
        return;
    sizes[APD_SECTION_CLASSES] = (uint64_t)apd_get32(bytes + APD_MH_CLASSES) * APD_MANIFEST_CLASS;
    sizes[APD_SECTION_SHARDS] = (uint64_t)apd_get32(bytes + APD_MH_SHARDS) * APD_MANIFEST_SHARD;
    sizes[APD_SECTION_RECORDS] = apd_get64(bytes + APD_MH_SAMPLES) * APD_MANIFEST_RECORD;
    sizes[APD_SECTION_NAMES] = apd_get64(bytes + APD_MH_NAMES_BYTES);
    for (int s = 0; s < APD_SECTIONS && sizes[s] <= size - at; s++) {
        apd_put32(bytes + APD_MH_SECTION_CRC + 4 * s, apd_crc32c(0, bytes + at, sizes[s]));
        at += sizes[s];
    }
    apd_put32(bytes + APD_MH_CRC, apd_crc32c(0, bytes, APD_MH_CRC));
}

static void read_all(const struct apd_manifest *manifest)
{
    const struct apd_manifest_info *info = apd_manifest_info(manifest);
    size_t letters = strlen(info->root);

    for (uint32_t i = 0; i < info->classes; i++)
        letters += strlen(apd_manifest_class(manifest, i));
    for (uint64_t i = 0; i < info->samples; i++) {
        struct apd_manifest_sample sample;
        struct apd_manifest_shard shard;

        apd_manifest_sample(manifest, i, &sample);
        fuzz_check(sample.shard < info->shards, "shard beyond the table");
        apd_manifest_shard(manifest, sample.shard, &shard);
        letters += strlen(sample.path) + strlen(shard.path);
        fuzz_check(sample.label >= 0 && (uint32_t)sample.label < info->classes, "label");
        fuzz_check(i >= shard.first_sample && i - shard.first_sample < shard.samples, "shard");
        if (info->kind == APD_MANIFEST_TAR)
            fuzz_check(sample.offset + sample.size <= shard.bytes, "beyond the end of the shard");
    }
    fuzz_check(letters < SIZE_MAX, "letters");
}

static void one(struct test_random *random)
{
    int which = (int)test_below(random, 2);
    size_t size = fuzz_damage(random, sound[which], sound_size[which], damaged);
    struct apd_manifest *manifest = NULL;
    struct apd_err err = {0};

    if (test_below(random, 2) == 0)
        forge(damaged, size);
    scratch_write(path, damaged, size);
    if (apd_manifest_open(path, &manifest, &err) != APD_OK) {
        fuzz_check(err.code == APD_DATA && strstr(err.msg, path) != NULL, "unclear error");
        fuzz_check(manifest == NULL, "output set on failure");
        return;
    }
    read_all(manifest);
    apd_manifest_close(&manifest);
}

int main(int argc, char **argv)
{
    int status;

    scratch_create();
    path = scratch_path("index");
    for (int which = 0; which < 2; which++)
        make_sound(which);
    damaged = malloc(2 * (sound_size[0] + sound_size[1]) + 64);
    fuzz_check(damaged != NULL, "no memory");
    status = fuzz_main(argc, argv, one);
    free(sound[0]);
    free(sound[1]);
    free(damaged);
    scratch_remove();
    return status;
}
