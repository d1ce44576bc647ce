/* Before the loop: the lock, the generation, the newest checkpoint, files of records. */
#include "base/fs.h"
#include "daemon/journal.h"
#include "daemon/lock.h"
#include "daemon/prepare.h"
#include "daemon/sweep.h"
#include "proto/run_dir.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const overrides[] = {"data.path=/data", "train.batch=80", "train.lanes=4"};

static enum apd_code prepare(const char *dir, uint32_t workers, struct apd_prepared *out,
                             struct apd_err *err)
{
    const struct apd_prepare_args args = {
        .run_dir = dir, .overrides = overrides, .override_count = 3, .workers = workers};

    return apd_prepare(&args, out, err);
}

/* A child that holds the lock until told to end; returns the pipe to end it by closing. */
static pid_t hold_lock(const char *path, int *out_pipe)
{
    int tell[2], ready[2], fd;
    struct apd_err err;
    char byte = 0;
    pid_t pid;

    assert_int_equal(pipe(tell), 0);
    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(tell[1]);
        if (apd_lock_take(path, 0, &fd, &err) != APD_OK || write(ready[1], "1", 1) != 1)
            _exit(1);
        (void)!read(tell[0], &byte, 1);
        _exit(0);
    }
    close(tell[0]);
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    *out_pipe = tell[1];
    return pid;
}

static void held_lock_names_its_holder(void **state)
{
    const char *path = scratch_path("lock");
    struct apd_err err = {0};
    char who[32];
    int fd, pipe_end, status;
    pid_t pid = hold_lock(path, &pipe_end);

    (void)state;
    assert_int_equal(apd_lock_take(path, 50, &fd, &err), APD_IO);
    assert_int_equal(apd_exit_status(err.code), APD_EXIT_UNAVAILABLE);
    (void)snprintf(who, sizeof who, "pid %ld on ", (long)pid);
    assert_non_null(strstr(err.msg, who));
    close(pipe_end);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(apd_lock_take(path, 10000, &fd, &err), APD_OK);
    close(fd);
}

static void lock_of_a_dying_predecessor_is_waited_for(void **state)
{
    const char *path = scratch_path("lock");
    struct apd_err err = {0};
    int fd, pipe_end, status;
    pid_t pid = hold_lock(path, &pipe_end);

    (void)state;
    close(pipe_end); /* it ends while we wait, or just before */
    assert_int_equal(apd_lock_take(path, 10000, &fd, &err), APD_OK);
    close(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void generation_rises_with_every_start(void **state)
{
    const char *dir = scratch_path("rising");
    struct apd_prepared prepared;
    struct apd_err err = {0};
    struct stat st;

    (void)state;
    for (uint64_t generation = 1; generation <= 3; generation++) {
        if (prepare(dir, 2, &prepared, &err) != APD_OK)
            fail_msg("%s", err.msg);
        assert_int_equal(prepared.generation, generation);
        assert_int_equal(prepared.commit_count, 0);
        assert_int_equal(stat(dir, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
        apd_prepared_fini(&prepared);
    }
}

static void generation_is_above_every_commit(void **state)
{
    const char *dir = scratch_path("above");
    struct apd_prepared prepared;
    struct apd_commit commit = {
        .step = 5, .path = "checkpoints/gone", .bytes = 3, .generation = 41, .reason = "end"};
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(prepare(dir, 2, &prepared, &err), APD_OK);
    apd_prepared_fini(&prepared);
    memset(commit.sha256, 'a', 64);
    assert_int_equal(apd_commit_log_append(dir, &commit, &err), APD_OK);
    assert_int_equal(prepare(dir, 2, &prepared, &err), APD_OK);
    assert_int_equal(prepared.generation, 42);
    assert_int_equal(prepared.commit_count, 0); /* its file is not there */
    assert_int_equal(prepared.skipped_count, 1);
    apd_prepared_fini(&prepared);
}

static void senseless_generation_is_an_error(void **state)
{
    const char *dir = scratch_path("senseless");
    struct apd_prepared prepared;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(prepare(dir, 2, &prepared, &err), APD_OK);
    apd_prepared_fini(&prepared);
    scratch_write(scratch_path("senseless/generation"), "12x\n", 4);
    assert_int_equal(prepare(dir, 2, &prepared, &err), APD_DATA);
    assert_non_null(strstr(err.msg, "12x"));
}

static void resume_is_the_newest_sound_checkpoint(void **state)
{
    const char *dir = scratch_path("resume");
    struct apd_prepared prepared;
    struct apd_err err = {0};
    char name[64], path[APD_COMMIT_PATH + 8];

    (void)state;
    assert_int_equal(prepare(dir, 2, &prepared, &err), APD_OK);
    apd_prepared_fini(&prepared);
    for (uint64_t step = 1; step <= 3; step++) {
        struct apd_commit commit = {
            .step = step, .bytes = 3, .generation = 1, .reason = "interval"};

        (void)snprintf(commit.path, sizeof commit.path, "checkpoints/%d", (int)step);
        (void)snprintf(path, sizeof path, "resume/%s", commit.path);
        (void)snprintf(name, sizeof name, "ab%d", (int)step);
        scratch_write(scratch_path(path), name, 3);
        assert_int_equal(apd_sha256_of(name, 3, commit.sha256, &err), APD_OK);
        assert_int_equal(apd_commit_log_append(dir, &commit, &err), APD_OK);
    }
    scratch_write(scratch_path("resume/checkpoints/3"), "abX", 3); /* damaged since */
    assert_int_equal(prepare(dir, 2, &prepared, &err), APD_OK);
    assert_int_equal(prepared.commit_count, 2);
    assert_int_equal(prepared.commit[1].step, 2);
    assert_int_equal(prepared.skipped_count, 1);
    apd_prepared_fini(&prepared);
}

enum { COMMITTED, UNCOMMITTED, PARTIAL, NOTES, NO_NUMBER, FILES };

static const char *const file_name[FILES] = {
    [COMMITTED] = "step-0000000007-gen-1.safetensors",
    [UNCOMMITTED] = "step-0000000009-gen-1.safetensors",
    [PARTIAL] = "step-0000000009-gen-1.safetensors.tmp.77",
    [NOTES] = "notes.txt",
    [NO_NUMBER] = "step-one.safetensors",
};

/* Sweeps a folder with all of these and tells which are left, a bit a file. */
static unsigned left_by_sweep(const char *dir, const struct apd_commit_list *all)
{
    struct apd_err err = {0};
    unsigned left = 0;
    char path[256];

    (void)snprintf(path, sizeof path, "%s/checkpoints", dir);
    assert_int_equal(apd_mkdirs(scratch_path(path), 0700, &err), APD_OK);
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(path, sizeof path, "%s/checkpoints/%s", dir, file_name[i]);
        scratch_write(scratch_path(path), "x", 1);
    }
    assert_int_equal(apd_sweep(scratch_path(dir), all, &err), APD_OK);
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(path, sizeof path, "%s/checkpoints/%s", dir, file_name[i]);
        left |= (unsigned)(access(scratch_path(path), F_OK) == 0) << i;
    }
    return left;
}

static void files_never_committed_are_removed(void **state)
{
    struct apd_commit commit = {.step = 7, .path = "checkpoints/step-0000000007-gen-1.safetensors"};
    struct apd_commit_list all = {.commit = &commit, .count = 1};

    (void)state;
    assert_int_equal(left_by_sweep("sweep", &all), 1 << COMMITTED | 1 << NOTES | 1 << NO_NUMBER);
}

static void whole_files_stay_when_the_log_is_damaged_or_gone(void **state)
{
    struct apd_commit commit = {.step = 7, .path = "checkpoints/step-0000000007-gen-1.safetensors"};
    struct apd_commit_list damaged = {.commit = &commit, .count = 1, .skipped_count = 1};
    struct apd_commit_list gone = {0};
    unsigned all_but_partial = (1U << FILES) - 1 - (1U << PARTIAL);

    (void)state;
    assert_int_equal(left_by_sweep("damaged", &damaged), all_but_partial);
    assert_int_equal(left_by_sweep("gone", &gone), all_but_partial);
}

static void too_many_workers_are_a_configuration_error(void **state)
{
    struct apd_prepared prepared;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(prepare(scratch_path("many"), 5, &prepared, &err), APD_CONFIG);
    assert_null(prepared.run_dir);
}

static void torn_line_is_ended_before_the_next(void **state)
{
    const char *path = scratch_path("records.jsonl");
    struct apd_journal journal;
    struct apd_err err = {0};
    unsigned char *text;
    size_t size;

    (void)state;
    scratch_write(path, "{\"a\":1}\n{\"b\":", 13);
    assert_int_equal(apd_journal_open(&journal, path, &err), APD_OK);
    apd_journal_add(&journal, "{\"c\":3}");
    apd_journal_close(&journal);
    assert_int_equal(apd_journal_open(&journal, path, &err), APD_OK);
    apd_journal_add(&journal, "{\"d\":4}");
    apd_journal_flush(&journal);
    text = scratch_read(path, &size);
    assert_int_equal(size, 30);
    assert_memory_equal(text, "{\"a\":1}\n{\"b\":\n{\"c\":3}\n{\"d\":4}\n", 30);
    free(text);
    apd_journal_close(&journal);
}

static void records_wait_while_the_disk_is_full(void **state)
{
    struct apd_journal journal;
    struct apd_err err = {0};
    char line[1001];

    (void)state;
    memset(line, 'x', 1000);
    line[1000] = '\0';
    assert_int_equal(apd_journal_open(&journal, "/dev/full", &err), APD_OK);
    for (int i = 0; i < 2000; i++)
        apd_journal_add(&journal, line);
    assert_true(journal.failed);
    assert_true(journal.used > 900000 && journal.used <= journal.size);
    assert_int_equal(journal.dropped, 2000 - journal.used / 1001);
    apd_journal_close(&journal);
}

static int make_scratch(void **state)
{
    (void)state;
    return scratch_create() == NULL;
}

static int remove_scratch(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_lock_names_its_holder),
        cmocka_unit_test(lock_of_a_dying_predecessor_is_waited_for),
        cmocka_unit_test(generation_rises_with_every_start),
        cmocka_unit_test(generation_is_above_every_commit),
        cmocka_unit_test(senseless_generation_is_an_error),
        cmocka_unit_test(resume_is_the_newest_sound_checkpoint),
        cmocka_unit_test(files_never_committed_are_removed),
        cmocka_unit_test(whole_files_stay_when_the_log_is_damaged_or_gone),
        cmocka_unit_test(too_many_workers_are_a_configuration_error),
        cmocka_unit_test(torn_line_is_ended_before_the_next),
        cmocka_unit_test(records_wait_while_the_disk_is_full),
    };

    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
