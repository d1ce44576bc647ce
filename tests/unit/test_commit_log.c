/* The commit log: sound records come back, damaged ones are named, the newest sound checkpoint
 * wins. */
#include "proto/commit_log.h"
#include "tests/support/fault.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *run_dir, *log_file;

/* A record of a checkpoint that exists: its file holds `content`. */
static struct apd_commit commit_of(uint64_t step, uint64_t generation, const char *content)
{
    struct apd_commit commit = {
        .step = step,
        .epoch = (uint32_t)(step / 10),
        .bytes = strlen(content),
        .generation = generation,
        .date_s = 1795000000.125,
        .main_top1 = 9012,
        .main_images = 10000,
        .reason = "interval",
    };
    struct apd_err err;

    (void)snprintf(commit.path, sizeof commit.path, "checkpoints/%llu-%llu.safetensors",
                   (unsigned long long)step, (unsigned long long)generation);
    scratch_write(scratch_path(commit.path), content, strlen(content));
    assert_int_equal(apd_sha256_of(content, strlen(content), commit.sha256, &err), APD_OK);
    return commit;
}

static void append(const struct apd_commit *commit)
{
    struct apd_err err;

    if (apd_commit_log_append(run_dir, commit, &err) != APD_OK)
        fail_msg("%s", err.msg);
}

static struct apd_commit_list load(void)
{
    struct apd_commit_list list = {0};
    struct apd_err err;

    if (apd_commit_log_load(run_dir, &list, &err) != APD_OK)
        fail_msg("%s", err.msg);
    return list;
}

static struct apd_commit_list newest(void)
{
    struct apd_commit_list list = {0};
    struct apd_err err;

    if (apd_commit_log_newest_good(run_dir, &list, &err) != APD_OK)
        fail_msg("%s", err.msg);
    return list;
}

static void assert_same(const struct apd_commit *a, const struct apd_commit *b)
{
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->epoch, b->epoch);
    assert_string_equal(a->path, b->path);
    assert_string_equal(a->sha256, b->sha256);
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->generation, b->generation);
    assert_true(a->date_s == b->date_s);
    assert_int_equal(a->main_top1, b->main_top1);
    assert_int_equal(a->main_images, b->main_images);
    assert_string_equal(a->reason, b->reason);
}

static void records_come_back_in_order(void **state)
{
    struct apd_commit a = commit_of(10, 1, "aaa"), b = commit_of(20, 1, "bbb");
    struct apd_commit_list list;

    (void)state;
    (void)snprintf(b.path, sizeof b.path, "checkpoints/with \"quotes\" and caf\xc3\xa9");
    append(&a);
    append(&b);
    list = load();
    assert_int_equal(list.count, 2);
    assert_int_equal(list.skipped_count, 0);
    assert_same(&list.commit[0], &a);
    assert_same(&list.commit[1], &b);
    apd_commit_list_fini(&list);
    apd_commit_list_fini(&list);
}

static void a_line_is_json_with_a_crc_over_what_is_before_it(void **state)
{
    struct apd_commit a = commit_of(10, 1, "aaa");
    size_t size;
    char *text, *mark, crc[16];

    (void)state;
    append(&a);
    text = (char *)scratch_read(log_file, &size);
    assert_int_equal(
        strncmp(text, "{\"step\":10,\"epoch\":1,\"path\":\"checkpoints/10-1.safete", 52), 0);
    mark = strstr(text, ",\"crc\":\"");
    assert_non_null(mark);
    (void)snprintf(crc, sizeof crc, "%08x\"}\n", apd_crc32c(0, text, (size_t)(mark - text)));
    assert_string_equal(mark + 8, crc);
    free(text);
}

static void no_log_is_an_empty_list(void **state)
{
    struct apd_commit_list list = load();

    (void)state;
    assert_int_equal(list.count, 0);
    list = newest();
    assert_int_equal(list.count, 0);
    assert_int_equal(list.skipped_count, 0);
}

/* Cuts the log after every byte, as a crash in the middle of a write would, then appends another.
 */
static void torn_line_is_skipped_and_does_not_swallow_the_next(void **state)
{
    struct apd_commit a = commit_of(10, 1, "aaa"), b = commit_of(20, 1, "bbb"),
                      c = commit_of(30, 2, "ccc");
    unsigned char *text;
    size_t one, both;

    (void)state;
    append(&a);
    free(scratch_read(log_file, &one));
    append(&b);
    text = scratch_read(log_file, &both);
    for (size_t cut = one + 1; cut < both; cut++) {
        struct apd_commit_list list;

        scratch_write(log_file, text, cut);
        list = load();
        assert_int_equal(list.count, 1);
        assert_int_equal(list.skipped_count, 1);
        assert_non_null(strstr(list.skipped[0], "line 2: torn"));
        apd_commit_list_fini(&list);
        append(&c);
        list = load();
        /* All of b was there but its newline: then closing the line makes it whole. */
        assert_int_equal(list.count, cut == both - 1 ? 3 : 2);
        assert_same(&list.commit[0], &a);
        assert_same(&list.commit[list.count - 1], &c);
        apd_commit_list_fini(&list);
    }
    free(text);
}

static void any_flipped_bit_loses_only_its_line(void **state)
{
    struct apd_commit a = commit_of(10, 1, "aaa"), b = commit_of(20, 1, "bbb"),
                      c = commit_of(30, 2, "ccc");
    unsigned char *text;
    size_t one, two, all;

    (void)state;
    append(&a);
    free(scratch_read(log_file, &one));
    append(&b);
    free(scratch_read(log_file, &two));
    append(&c);
    text = scratch_read(log_file, &all);
    for (size_t bit = one * 8; bit < (two - 1) * 8; bit++) {
        struct apd_commit_list list;

        text[bit / 8] ^= (unsigned char)(1 << bit % 8);
        scratch_write(log_file, text, all);
        text[bit / 8] ^= (unsigned char)(1 << bit % 8);
        list = load();
        assert_int_equal(list.count, 2);
        assert_true(list.skipped_count >= 1);
        assert_same(&list.commit[0], &a);
        assert_same(&list.commit[1], &c);
        apd_commit_list_fini(&list);
    }
    free(text);
}

/* Appends a line of this text with a right crc. */
static void append_text(const char *body)
{
    char line[4096];
    size_t n = strlen(body) - 1;
    FILE *file = fopen(log_file, "a");

    assert_non_null(file);
    (void)snprintf(line, sizeof line, "%.*s,\"crc\":\"%08x\"}\n", (int)n, body,
                   apd_crc32c(0, body, n));
    assert_true(fputs(line, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

#define SHA64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define REST  "\"bytes\":3,\"generation\":1,\"date_s\":5,\"main_images\":2,\"reason\":\"end\"}"

static void senseless_records_are_skipped(void **state)
{
    static const struct {
        const char *body, *says; /* NULL: it is fine */
    } cases[] = {
        {"{\"step\":1,\"epoch\":0,\"path\":\"c\",\"sha256\":\"" SHA64 "\",\"main_top1\":2," REST,
         NULL},
        {"{\"step\":1,\"epoch\":0,\"path\":\"c\",\"sha256\":\"" SHA64 "\",\"main_top1\":3," REST,
         "main_top1"},
        {"{\"step\":-1,\"epoch\":0,\"path\":\"c\",\"sha256\":\"" SHA64 "\",\"main_top1\":0," REST,
         "count"},
        {"{\"step\":1,\"epoch\":4294967296,\"path\":\"c\",\"sha256\":\"" SHA64
         "\",\"main_top1\":0," REST,
         "count"},
        {"{\"epoch\":0,\"path\":\"c\",\"sha256\":\"" SHA64 "\",\"main_top1\":0," REST, "count"},
        {"{\"step\":1,\"epoch\":0,\"path\":\"/etc/c\",\"sha256\":\"" SHA64
         "\",\"main_top1\":0," REST,
         "inside"},
        {"{\"step\":1,\"epoch\":0,\"path\":\"a/../../c\",\"sha256\":\"" SHA64
         "\",\"main_top1\":0," REST,
         "inside"},
        {"{\"step\":1,\"epoch\":0,\"path\":\"..\",\"sha256\":\"" SHA64 "\",\"main_top1\":0," REST,
         "inside"},
        {"{\"step\":1,\"epoch\":0,\"path\":\"\",\"sha256\":\"" SHA64 "\",\"main_top1\":0," REST,
         "inside"},
        {"{\"step\":1,\"epoch\":0,\"path\":\"c\",\"sha256\":\"12\",\"main_top1\":0," REST,
         "sha256"},
        {"{\"step\":1,\"epoch\":0,\"path\":5,\"sha256\":\"" SHA64 "\",\"main_top1\":0," REST,
         "text"},
        {"{\"step\":1,\"step\":2,\"path\":5,\"sha256\":\"" SHA64 "\",\"main_top1\":0," REST,
         "not JSON"},
        {"[]", "not JSON"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct apd_commit_list list;

        (void)unlink(log_file);
        append_text(cases[i].body);
        list = load();
        if (list.count != (cases[i].says == NULL) ||
            list.skipped_count != (cases[i].says != NULL) ||
            (cases[i].says != NULL && strstr(list.skipped[0], cases[i].says) == NULL))
            fail_msg("%s: %s", cases[i].body, list.skipped_count > 0 ? list.skipped[0] : "taken");
        apd_commit_list_fini(&list);
    }
}

static void newest_is_by_generation_then_by_place_not_by_step(void **state)
{
    struct apd_commit old = commit_of(90, 1, "old"), first = commit_of(50, 2, "first"),
                      second = commit_of(40, 2, "second"), stale = commit_of(99, 1, "stale");
    struct apd_commit_list list;

    (void)state;
    append(&old);
    append(&first);
    append(&second); /* went back to an older one and came to step 40 */
    append(&stale);  /* a writer of an older generation */
    list = newest();
    assert_int_equal(list.count, 1);
    assert_int_equal(list.skipped_count, 0);
    assert_same(&list.commit[0], &second);
    apd_commit_list_fini(&list);
}

static void damaged_checkpoints_fall_back_to_older_ones_with_reasons(void **state)
{
    struct apd_commit sound = commit_of(10, 1, "sound"), longer = commit_of(20, 1, "longer"),
                      other = commit_of(30, 2, "other"), missing = commit_of(40, 2, "missing"),
                      folder = commit_of(50, 3, "folder");
    struct apd_commit_list list;

    (void)state;
    append(&sound);
    append(&longer);
    append(&other);
    append(&missing);
    append(&folder);
    scratch_write(scratch_path(longer.path), "longer!", 7);
    scratch_write(scratch_path(other.path), "othar", 5);
    assert_int_equal(unlink(scratch_path(missing.path)), 0);
    assert_int_equal(unlink(scratch_path(folder.path)), 0);
    assert_int_equal(mkdir(scratch_path(folder.path), 0755), 0);
    append_text("{\"nonsense\":1}");
    list = newest();
    assert_int_equal(list.count, 1);
    assert_same(&list.commit[0], &sound);
    assert_int_equal(list.skipped_count, 5);
    assert_non_null(strstr(list.skipped[0], "line 6"));
    assert_non_null(strstr(list.skipped[1], "step 50, generation 3: checkpoints/50-3.safetensors"));
    assert_non_null(strstr(list.skipped[1], "no file"));
    assert_non_null(strstr(list.skipped[2], "step 40"));
    assert_non_null(strstr(list.skipped[2], "No such file"));
    assert_non_null(strstr(list.skipped[3], "step 30"));
    assert_non_null(strstr(list.skipped[3], "SHA-256"));
    assert_non_null(strstr(list.skipped[4], "7 bytes, expected 6"));
    apd_commit_list_fini(&list);
    assert_int_equal(unlink(scratch_path(sound.path)), 0);
    list = newest();
    assert_int_equal(list.count, 0);
    assert_int_equal(list.skipped_count, 6);
    apd_commit_list_fini(&list);
    assert_int_equal(rmdir(scratch_path(folder.path)), 0);
}

/* Each system call of an append fails in turn, on a new log and on one with a torn end. */
static void failed_append_is_void_whatever_call_fails(void **state)
{
    struct apd_commit a = commit_of(10, 1, "aaa"), b = commit_of(20, 1, "bbb");
    unsigned char *before;
    size_t before_size;

    (void)state;
    for (int torn = 0; torn <= 1; torn++) {
        const char *failed = "";
        int calls = 0;

        (void)unlink(log_file);
        if (torn)
            append(&a);
        if (torn)
            assert_int_equal(truncate(log_file, 100), 0);
        else
            scratch_write(log_file, "", 0);
        before = scratch_read(log_file, &before_size);
        for (int nth = 1; failed != NULL; nth++) {
            struct apd_err err = {0};
            unsigned char *after;
            size_t after_size;
            enum apd_code rc;

            fault_arm(nth, 0, EIO);
            rc = apd_commit_log_append(run_dir, &b, &err);
            failed = fault_fired();
            assert_int_equal(rc, failed != NULL ? APD_IO : APD_OK);
            if (failed == NULL)
                break;
            calls++;
            assert_int_equal(err.sys, EIO);
            assert_non_null(strstr(err.msg, "the record is void, the log was cut back"));
            after = scratch_read(log_file, &after_size);
            assert_int_equal(after_size, before_size);
            assert_memory_equal(after, before, before_size);
            free(after);
        }
        /* line, newline, fsync; and the closing newline, or the folder's fsync */
        assert_int_equal(calls, 4);
        free(before);
    }
}

static void log_that_cannot_be_cut_back_is_said(void **state)
{
    struct apd_commit a = commit_of(10, 1, "aaa");
    struct apd_err err;

    (void)state;
    append(&a);
    fault_arm(3, 1, EIO); /* the fsync, and the ftruncate after it */
    assert_int_equal(apd_commit_log_append(run_dir, &a, &err), APD_IO);
    assert_string_equal(fault_fired(), "fsync");
    assert_non_null(strstr(err.msg, "could not be cut back"));
}

static void senseless_record_is_not_written(void **state)
{
    struct apd_commit bad = commit_of(10, 1, "aaa");
    struct apd_err err;

    (void)state;
    (void)snprintf(bad.path, sizeof bad.path, "../elsewhere");
    assert_int_equal(apd_commit_log_append(run_dir, &bad, &err), APD_BUG);
    bad = commit_of(10, 1, "aaa");
    bad.sha256[3] = 'X';
    assert_int_equal(apd_commit_log_append(run_dir, &bad, &err), APD_BUG);
    bad = commit_of(10, 1, "aaa");
    (void)snprintf(bad.reason, sizeof bad.reason, "\xff");
    assert_int_equal(apd_commit_log_append(run_dir, &bad, &err), APD_BUG);
    assert_int_equal(access(log_file, F_OK), -1);
    bad = commit_of(10, 1, "aaa");
    assert_int_equal(apd_commit_log_append("/nonexistent", &bad, &err), APD_IO);
}

static int set_up(void **state)
{
    (void)state;
    run_dir = scratch_create();
    log_file = scratch_path(APD_COMMIT_LOG_FILE);
    return mkdir(scratch_path("checkpoints"), 0755);
}

static int fresh(void **state)
{
    (void)state;
    (void)unlink(log_file);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(records_come_back_in_order, fresh),
        cmocka_unit_test_setup(a_line_is_json_with_a_crc_over_what_is_before_it, fresh),
        cmocka_unit_test_setup(no_log_is_an_empty_list, fresh),
        cmocka_unit_test_setup(torn_line_is_skipped_and_does_not_swallow_the_next, fresh),
        cmocka_unit_test_setup(any_flipped_bit_loses_only_its_line, fresh),
        cmocka_unit_test_setup(senseless_records_are_skipped, fresh),
        cmocka_unit_test_setup(newest_is_by_generation_then_by_place_not_by_step, fresh),
        cmocka_unit_test_setup(damaged_checkpoints_fall_back_to_older_ones_with_reasons, fresh),
        cmocka_unit_test_setup(failed_append_is_void_whatever_call_fails, fresh),
        cmocka_unit_test_setup(log_that_cannot_be_cut_back_is_said, fresh),
        cmocka_unit_test_setup(senseless_record_is_not_written, fresh),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
