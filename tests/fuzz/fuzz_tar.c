/* Damaged tar shards, half of them with checksums made right again: refused with a message, or
 * every sample that is found lies in the file. */
#include "tests/fuzz/fuzz.h"
#include "tests/support/scratch.h"
#include "worker/data/tar_fields.h"
#include "worker/index/shard_content.h"
#include "worker/index/tar_write.h"

#include <string.h>

static const char *path;
static unsigned char *sound, *damaged;
static size_t sound_size;

/* Of all blocks that look like headers. */
static void seal_all(unsigned char *bytes, size_t size)
{
    for (size_t at = 0; at + APD_TAR_BLOCK <= size; at += APD_TAR_BLOCK) {
        unsigned char *header = bytes + at;
        unsigned sum = 0;

        if (memcmp(header + 257, "ustar", 5) != 0)
            continue;
        memset(header + 148, ' ', 8);
        for (int i = 0; i < APD_TAR_BLOCK; i++)
            sum += header[i];
        (void)snprintf((char *)header + 148, 7, "%06o", sum);
    }
}

static void one(struct test_random *random)
{
    struct apd_shard_content content;
    struct apd_reading reading = {0};
    struct apd_err err = {0};
    size_t size = fuzz_damage(random, sound, sound_size, damaged);

    if (test_below(random, 2) == 0)
        seal_all(damaged, size);
    scratch_write(path, damaged, size);
    if (apd_shard_read_tar(path, &reading, &content, &err) != APD_OK)
        fuzz_check(err.code == APD_DATA && strstr(err.msg, "offset") != NULL, "unclear error");
    for (size_t i = 0; i < content.samples; i++) {
        const struct apd_manifest_sample *sample = &content.sample[i];

        fuzz_check(sample->size > 0 && sample->offset + sample->size <= size, "beyond the end");
        fuzz_check(sample->label >= 0 && sample->label < APD_CLASSES_MAX, "senseless label");
        fuzz_check(sample->crc == apd_crc32c(0, damaged + sample->offset, sample->size), "CRC");
    }
    apd_shard_content_fini(&content);
}

static void make_sound(void)
{
    static const struct {
        const char *name, *data;
        char type; /* 0: a regular file */
    } members[] = {
        {"0.jpg", "an image", 0},
        {"0.cls", "3", 0},
        {"g", "20 comment=whatever\n", 'g'},
        {"x", "18 path=dir/1.png\n", 'x'},
        {"cut", "another image", 0},
        {"L", "dir/1.json", 'L'},
        {"cut", "{\"label\": 7}", 0},
        {"dir", "", '5'},
        {"2.webp", "a third image", 0},
        {"2.cls", "1", 0},
        {"3.jpg", "no label", 0},
    };
    struct apd_out_file out = {0};
    struct apd_err err;

    fuzz_check(apd_out_open(&out, path, &err) == APD_OK, "no archive");
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        fuzz_check(apd_tar_put(&out, members[i].name, members[i].data, strlen(members[i].data),
                               &err) == APD_OK,
                   "no member");
    fuzz_check(apd_tar_put_end(&out, &err) == APD_OK && apd_out_commit(&out, &err) == APD_OK,
               "no archive");
    apd_out_fini(&out);
    sound = scratch_read(path, &sound_size);
    /* Each member has a header and at most one block. */
    for (size_t i = 0, at = 0; i < sizeof members / sizeof *members; i++) {
        if (members[i].type != 0)
            sound[at + 156] = (unsigned char)members[i].type;
        at += members[i].data[0] != '\0' ? 2 * APD_TAR_BLOCK : APD_TAR_BLOCK;
    }
    seal_all(sound, sound_size);
}

int main(int argc, char **argv)
{
    struct apd_shard_content content;
    struct apd_reading reading = {0};
    struct apd_err err;
    int status;

    scratch_create();
    path = scratch_path("shard.tar");
    make_sound();
    scratch_write(path, sound, sound_size);
    fuzz_check(apd_shard_read_tar(path, &reading, &content, &err) == APD_OK, err.msg);
    fuzz_check(content.samples == 3 && content.left_out == 1, "the sound shard is none");
    apd_shard_content_fini(&content);
    damaged = malloc(2 * sound_size + 64);
    fuzz_check(damaged != NULL, "no memory");
    status = fuzz_main(argc, argv, one);
    free(sound);
    free(damaged);
    scratch_remove();
    return status;
}
