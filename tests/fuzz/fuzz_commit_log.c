/* Damaged commit logs: loading succeeds, and what it hands out are records that were written. */
#include "proto/commit_log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/scratch.h"

#include <string.h>
#include <sys/stat.h>

enum { RECORDS = 4 };

static struct apd_commit written[RECORDS];
static const char *run_dir, *log_file;
static unsigned char *sound, *damaged;
static size_t sound_size;

static int was_written(const struct apd_commit *commit)
{
    for (int i = 0; i < RECORDS; i++)
        if (memcmp(commit, &written[i], sizeof *commit) == 0)
            return 1;
    return 0;
}

static void one(struct test_random *random)
{
    struct apd_commit_list list = {0};
    struct apd_err err = {0};
    size_t size = fuzz_damage(random, sound, sound_size, damaged);
    size_t before;

    scratch_write(log_file, damaged, size);
    fuzz_check(apd_commit_log_load(run_dir, &list, &err) == APD_OK, "log not loaded");
    for (size_t i = 0; i < list.count; i++)
        fuzz_check(was_written(&list.commit[i]), "record that nobody wrote");
    for (size_t i = 0; i < list.skipped_count; i++)
        fuzz_check(strstr(list.skipped[i], "line") != NULL, "unclear reason");
    before = list.count;
    apd_commit_list_fini(&list);

    /* Whatever the log looks like, a new record is found in it. (Closing a line that lacks only its
     * newline may bring that one back.) */
    fuzz_check(apd_commit_log_append(run_dir, &written[RECORDS - 1], &err) == APD_OK, "no append");
    fuzz_check(apd_commit_log_load(run_dir, &list, &err) == APD_OK, "log not loaded");
    fuzz_check(list.count == before + 1 || list.count == before + 2, "append lost");
    fuzz_check(was_written(&list.commit[list.count - 1]), "record that nobody wrote");
    apd_commit_list_fini(&list);
    fuzz_check(apd_commit_log_newest_good(run_dir, &list, &err) == APD_OK && list.count == 0,
               "a checkpoint without a file is good");
    apd_commit_list_fini(&list);
}

int main(int argc, char **argv)
{
    struct apd_err err;
    int status;

    run_dir = scratch_create();
    log_file = scratch_path(APD_COMMIT_LOG_FILE);
    fuzz_check(mkdir(scratch_path("checkpoints"), 0755) == 0, "no folder");
    for (int i = 0; i < RECORDS; i++) {
        written[i].step = 100u * (unsigned)i;
        written[i].generation = 1 + (unsigned)i / 2;
        written[i].bytes = 1000;
        written[i].date_s = 1795000000.5 + i;
        (void)snprintf(written[i].path, sizeof written[i].path, "checkpoints/%d.safetensors", i);
        memset(written[i].sha256, "0a5f"[i], 64);
        (void)snprintf(written[i].reason, sizeof written[i].reason, "%s", "epoch");
        fuzz_check(apd_commit_log_append(run_dir, &written[i], &err) == APD_OK, "no append");
    }
    sound = scratch_read(log_file, &sound_size);
    damaged = malloc(2 * sound_size + 64);
    fuzz_check(damaged != NULL, "no memory");
    status = fuzz_main(argc, argv, one);
    free(sound);
    free(damaged);
    scratch_remove();
    return status;
}
