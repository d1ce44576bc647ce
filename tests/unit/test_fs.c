/* Files: caps, whole or old content whatever call fails, folders. */
#include "base/fs.h"
#include "tests/support/fault.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void assert_content(const char *path, const char *expected)
{
    size_t size;
    unsigned char *data = scratch_read(path, &size);

    assert_int_equal(size, strlen(expected));
    assert_memory_equal(data, expected, size);
    free(data);
}

static void mkdirs_makes_all_folders_and_minds_the_mode(void **state)
{
    struct apd_err err;
    struct stat st;

    (void)state;
    assert_int_equal(apd_mkdirs(scratch_path("a/b c/d"), 0700, &err), APD_OK);
    assert_int_equal(stat(scratch_path("a/b c/d"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(apd_mkdirs(scratch_path("a/b c/d"), 0700, &err), APD_OK);
}

static void mkdirs_through_a_file_names_it(void **state)
{
    struct apd_err err;

    (void)state;
    scratch_write(scratch_path("plain"), "", 0);
    assert_int_equal(apd_mkdirs(scratch_path("plain"), 0755, &err), APD_CONFIG);
    assert_int_not_equal(apd_mkdirs(scratch_path("plain/sub"), 0755, &err), APD_OK);
    assert_non_null(strstr(err.msg, "plain"));
    assert_int_equal(apd_mkdirs("", 0755, &err), APD_CONFIG);
}

static void read_file_gives_the_bytes_and_a_nul(void **state)
{
    struct apd_err err;
    size_t size;
    char *data;

    (void)state;
    scratch_write(scratch_path("bytes"), "a\0b", 3);
    assert_int_equal(apd_read_file(scratch_path("bytes"), 3, &data, &size, &err), APD_OK);
    assert_int_equal(size, 3);
    assert_memory_equal(data, "a\0b", 4);
    free(data);
}

static void read_file_over_the_cap_or_missing_is_refused(void **state)
{
    struct apd_err err;
    size_t size;
    char *data = NULL;

    (void)state;
    scratch_write(scratch_path("bytes"), "1234", 4);
    assert_int_equal(apd_read_file(scratch_path("bytes"), 3, &data, &size, &err), APD_DATA);
    assert_non_null(strstr(err.msg, "4 bytes"));
    assert_int_equal(apd_read_file(scratch_path("none"), 3, &data, &size, &err), APD_IO);
    assert_int_equal(err.sys, ENOENT);
    assert_int_equal(apd_read_file(scratch_path("."), 1 << 20, &data, &size, &err), APD_DATA);
    assert_null(data);
}

static void write_file_leaves_old_or_new_whatever_fails(void **state)
{
    const char *path = scratch_path("w/file");
    const char *failed = "";
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_mkdirs(scratch_path("w"), 0755, &err), APD_OK);
    for (int nth = 1; failed != NULL; nth++) {
        enum apd_code rc;

        scratch_write(path, "old", 3);
        fault_arm(nth, 0, EIO);
        rc = apd_write_file(path, "fresh", 5, 1, &err);
        failed = fault_fired();
        assert_int_equal(scratch_entries("w"), 1);
        assert_int_equal(rc, failed != NULL ? APD_IO : APD_OK);
        if (failed == NULL || nth == 4) /* the fsync of the folder comes after the rename */
            assert_content(path, "fresh");
        else
            assert_content(path, "old");
        assert_true(nth <= 5);
    }
}

static void append_line_adds_one_line(void **state)
{
    const char *path = scratch_path("lines");
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_append_line(path, "one", 0, &err), APD_OK);
    assert_int_equal(apd_append_line(path, "two", 1, &err), APD_OK);
    assert_content(path, "one\ntwo\n");
    fault_arm(2, 0, EIO);
    assert_int_equal(apd_append_line(path, "three", 1, &err), APD_IO);
    assert_string_equal(fault_fired(), "fsync");
    assert_int_equal(apd_append_line(scratch_path("no/lines"), "x", 0, &err), APD_IO);
}

static void fsync_of_a_missing_folder_is_an_error(void **state)
{
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_fsync_folder_of(scratch_path("nowhere/file"), &err), APD_IO);
    assert_non_null(strstr(err.msg, "nowhere"));
    assert_int_equal(apd_fsync_folder_of(scratch_path("file"), &err), APD_OK);
}

static int set_up(void **state)
{
    (void)state;
    scratch_create();
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
        cmocka_unit_test(mkdirs_makes_all_folders_and_minds_the_mode),
        cmocka_unit_test(mkdirs_through_a_file_names_it),
        cmocka_unit_test(read_file_gives_the_bytes_and_a_nul),
        cmocka_unit_test(read_file_over_the_cap_or_missing_is_refused),
        cmocka_unit_test(write_file_leaves_old_or_new_whatever_fails),
        cmocka_unit_test(append_line_adds_one_line),
        cmocka_unit_test(fsync_of_a_missing_folder_is_an_error),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
