/* Damaged checkpoint files: always refused with the hash given; without it, refused or readable. */
#include "tests/fuzz/fuzz.h"
#include "tests/support/scratch.h"
#include "worker/safetensors.h"

#include <string.h>

static const char *path;
static unsigned char *sound, *damaged;
static size_t sound_size;
static char sha256[APD_SHA256_HEX];

static void read_all(struct apd_safetensors *file)
{
    struct apd_err err;

    for (size_t i = 0; i < apd_safetensors_count(file); i++) {
        const struct apd_tensor *tensor = apd_safetensors_at(file, i);
        uint64_t bytes = apd_tensor_bytes(tensor);
        void *values;

        fuzz_check(bytes <= sound_size * 2, "more bytes than the file has");
        values = malloc(bytes + 1);
        fuzz_check(values != NULL, "tensor without memory");
        fuzz_check(apd_safetensors_read(file, tensor, values, &err) == APD_OK, "unreadable values");
        free(values);
    }
}

static void one(struct test_random *random)
{
    struct apd_safetensors *file = NULL;
    struct apd_err err = {0};
    size_t size = fuzz_damage(random, sound, sound_size, damaged);
    int same = size == sound_size && memcmp(damaged, sound, size) == 0;

    scratch_write(path, damaged, size);
    if (!same) {
        fuzz_check(apd_safetensors_open(path, sha256, &file, &err) == APD_DATA,
                   "damage not noticed in spite of the hash");
        fuzz_check(file == NULL, "output set on failure");
    }
    if (apd_safetensors_open(path, NULL, &file, &err) != APD_OK) {
        fuzz_check(err.code == APD_DATA && strstr(err.msg, "file.safetensors") != NULL,
                   "unclear error");
        return;
    }
    (void)apd_safetensors_meta(file, "step");
    read_all(file);
    apd_safetensors_close(&file);
}

int main(int argc, char **argv)
{
    static const float values[12] = {1, 2, 3};
    static const uint64_t counts[2] = {4, 5};
    static const struct apd_tensor tensors[] = {{"conv1.weight", APD_DTYPE_F32, 2, {3, 4}, values},
                                                {"bn1.weight", APD_DTYPE_F32, 1, {5}, values},
                                                {"counts", APD_DTYPE_U64, 1, {2}, counts}};
    static const struct apd_meta meta[] = {{"step", "12"}, {"config", "a: \"b\"\n"}};
    struct apd_err err;
    uint64_t bytes;
    int status;

    scratch_create();
    path = scratch_path("file.safetensors");
    fuzz_check(apd_safetensors_write(path, tensors, 3, meta, 2, &bytes, sha256, &err) == APD_OK,
               "no sample file");
    sound = scratch_read(path, &sound_size);
    damaged = malloc(2 * sound_size + 64);
    fuzz_check(damaged != NULL, "no memory");
    status = fuzz_main(argc, argv, one);
    free(sound);
    free(damaged);
    scratch_remove();
    return status;
}
