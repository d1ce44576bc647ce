/* The run directory: made private, kept for the same result, refused for another one. */
#define _XOPEN_SOURCE 700 /* nftw */
#include "base/fs.h"
#include "proto/nearest.h"
#include "proto/run_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/apd-run-dir-XXXXXX";
static char run_dir[64];

static int make_root(void **state)
{
    (void)state;
    if (mkdtemp(root) == NULL)
        return -1;
    (void)snprintf(run_dir, sizeof run_dir, "%s/a/b", root);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *place)
{
    (void)st;
    (void)flag;
    (void)place;
    return remove(path);
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static enum apd_code prepare(const char *override, struct apd_err *err)
{
    struct apd_config config;

    assert_int_equal(apd_config_load(NULL, &override, 1, &config, err), APD_OK);
    return apd_run_dir_prepare(run_dir, &config, err);
}

static void stored(struct apd_config *out)
{
    char path[APD_RUN_PATH_MAX];
    struct apd_err err = {0};

    assert_int_equal(apd_run_dir_path(run_dir, APD_RUN_CONFIG, path, &err), APD_OK);
    assert_int_equal(apd_config_load(path, NULL, 0, out, &err), APD_OK);
}

static void fresh_directory_is_private_and_holds_the_configuration(void **state)
{
    struct apd_config config;
    struct apd_err err = {0};
    char path[APD_RUN_PATH_MAX];
    struct stat st;

    (void)state;
    assert_int_equal(prepare("optim.lr=0.05", &err), APD_OK);
    assert_int_equal(stat(run_dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(apd_run_dir_path(run_dir, APD_RUN_CHECKPOINTS, path, &err), APD_OK);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(apd_run_dir_path(run_dir, APD_RUN_LOGS, path, &err), APD_OK);
    assert_int_equal(access(path, F_OK), 0);
    stored(&config);
    assert_true(config.optim.lr == 0.05);
}

static void other_result_is_refused_and_named(void **state)
{
    struct apd_config config;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(prepare("optim.lr=0.2", &err), APD_CONFIG);
    assert_non_null(strstr(err.msg, "optim.lr 0.05"));
    assert_non_null(strstr(err.msg, "0.2"));
    stored(&config);
    assert_true(config.optim.lr == 0.05);
}

static void other_logging_is_taken_over(void **state)
{
    const char *const overrides[] = {"optim.lr=0.05", "checkpoint.every_s=5"};
    struct apd_config config;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(apd_config_load(NULL, overrides, 2, &config, &err), APD_OK);
    assert_int_equal(apd_run_dir_prepare(run_dir, &config, &err), APD_OK);
    stored(&config);
    assert_true(config.checkpoint.every_s == 5);
}

static void damaged_configuration_is_an_error(void **state)
{
    char path[APD_RUN_PATH_MAX];
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(apd_run_dir_path(run_dir, APD_RUN_CONFIG, path, &err), APD_OK);
    assert_int_equal(apd_write_file(path, "seed: [", 7, 0, &err), APD_OK);
    assert_int_equal(prepare("optim.lr=0.05", &err), APD_CONFIG);
    assert_non_null(strstr(err.msg, path));
}

static void too_long_path_is_an_error(void **state)
{
    char name[APD_RUN_PATH_MAX], out[APD_RUN_PATH_MAX];
    struct apd_err err = {0};

    (void)state;
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_int_equal(apd_run_dir_path("/run", name, out, &err), APD_CONFIG);
}

static void nearest_finds_typing_errors_only(void **state)
{
    static const char *const words[] = {"train", "status", "watch", "drain"};

    (void)state;
    assert_string_equal(apd_nearest("tarin", words, 4), "train");
    assert_string_equal(apd_nearest("statsu", words, 4), "status");
    assert_string_equal(apd_nearest("wach", words, 4), "watch");
    assert_string_equal(apd_nearest("sta", words, 4), "status");
    assert_null(apd_nearest("zebra-crossing", words, 4));
    assert_null(apd_nearest("", words, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_directory_is_private_and_holds_the_configuration),
        cmocka_unit_test(other_result_is_refused_and_named),
        cmocka_unit_test(other_logging_is_taken_over),
        cmocka_unit_test(damaged_configuration_is_an_error),
        cmocka_unit_test(too_long_path_is_an_error),
        cmocka_unit_test(nearest_finds_typing_errors_only),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
