/* Open files of shards: a bounded number, and none that is being read is closed. */
#include "worker/data/shard_files.h"

#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>

static struct apd_shard_files *files;
static struct apd_err err;

static int make_shards(void **state)
{
    (void)state;
    scratch_create();
    scratch_write(scratch_path("a"), "a", 1);
    scratch_write(scratch_path("b"), "b", 1);
    scratch_write(scratch_path("c"), "c", 1);
    return 0;
}

static int remove_shards(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return apd_shard_files_create(2, &files, &err) == APD_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    apd_shard_files_destroy(&files);
    return 0;
}

static int take(uint32_t shard, const char *name)
{
    int fd;

    assert_int_equal(apd_shard_files_take(files, shard, scratch_path(name), &fd, &err), APD_OK);
    return fd;
}

static int is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void a_file_stays_open_until_room_is_needed(void **state)
{
    int a, b;

    (void)state;
    a = take(0, "a");
    apd_shard_files_give(files, a, 0);
    b = take(1, "b");
    apd_shard_files_give(files, b, 0);
    assert_int_equal(take(0, "a"), a);
    apd_shard_files_give(files, a, 0);
    apd_shard_files_give(files, take(2, "c"), 0); /* b was not used for longest */
    assert_int_equal(take(0, "a"), a);
    apd_shard_files_give(files, a, 0);
}

static void a_stale_file_is_closed_by_its_last_reader_only(void **state)
{
    int stale, fresh;

    (void)state;
    stale = take(0, "a");
    assert_int_equal(take(0, "a"), stale);
    apd_shard_files_give(files, stale, 1);
    fresh = take(0, "a");
    assert_int_not_equal(fresh, stale);
    apd_shard_files_give(files, fresh, 0);
    assert_true(is_open(stale)); /* its second reader still reads */
    apd_shard_files_give(files, stale, 0);
    assert_false(is_open(stale));
    assert_int_equal(take(0, "a"), fresh);
    apd_shard_files_give(files, fresh, 0);
}

static void a_missing_file_takes_no_place(void **state)
{
    int fd, a;

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(apd_shard_files_take(files, 9, scratch_path("no such"), &fd, &err),
                         APD_IO);
    a = take(0, "a");
    apd_shard_files_give(files, take(1, "b"), 0);
    assert_true(is_open(a));
    apd_shard_files_give(files, a, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_stays_open_until_room_is_needed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stale_file_is_closed_by_its_last_reader_only, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_missing_file_takes_no_place, setup, teardown),
    };

    return cmocka_run_group_tests(tests, make_shards, remove_shards);
}
