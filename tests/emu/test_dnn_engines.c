/* The file of engines (kernels/cuda/dnn.h): a restart takes what it says, damage is survived. */
#include "base/fs.h"
#include "tests/emu/dnn_case.h"
#include "tests/emu/standin_cudnn.h"
#include "tests/support/scratch.h"

#include <stdlib.h>
#include <string.h>

static char *text_of(const char *path)
{
    struct apd_err err;
    char *text = NULL;

    GOOD(apd_read_file(path, 1 << 20, &text, NULL, &err));
    return text;
}

/* In the file, the first `from` becomes `to`. */
static void replace(const char *path, const char *from, const char *to)
{
    char changed[4096], *text = NULL, *found;
    struct apd_err err;

    GOOD(apd_read_file(path, 1 << 20, &text, NULL, &err));
    found = strstr(text, from);
    assert_non_null(found);
    (void)snprintf(changed, sizeof changed, "%.*s%s%s", (int)(found - text), text, to,
                   found + strlen(from));
    scratch_write(path, changed, strlen(changed));
    free(text);
}

static void write_engines(const char *path)
{
    struct apd_dnn *dnn;
    struct apd_err err;

    scratch_write(path, "", 0); /* whatever was there */
    dnn = dnn_case_library(path, 0);
    (void)dnn_plan_info(dnn, &dnn_shapes[0]);
    (void)dnn_plan_info(dnn, &dnn_shapes[9]);
    GOOD(apd_dnn_save(dnn, &err));
    apd_dnn_destroy(&dnn);
}

static void a_restart_takes_the_engines_of_the_file(void **state)
{
    const char *path = scratch_path("engines");
    struct apd_dnn *dnn;
    struct apd_err err;
    char *text;

    (void)state;
    write_engines(path);
    replace(path, "\"knobs\":[[2,2]]", "\"knobs\":[[2,3]]");
    dnn = dnn_case_library(path, 0);
    assert_string_equal(apd_dnn_engines_note(dnn), "");
    assert_string_equal(dnn_plan_info(dnn, &dnn_shapes[0]).name, "eng2 k2=3");
    assert_string_equal(dnn_plan_info(dnn, &dnn_shapes[9]).name, "eng2 k2=2");
    /* Nothing is new: the file is left alone. */
    assert_int_equal(remove(path), 0);
    GOOD(apd_dnn_save(dnn, &err));
    assert_int_equal(apd_read_file(path, 1 << 20, &text, NULL, &err), APD_IO);
    /* What nobody asked for stays. */
    apd_dnn_destroy(&dnn);
    write_engines(path);
    dnn = dnn_case_library(path, 0);
    (void)dnn_plan_info(dnn, &dnn_shapes[1]);
    GOOD(apd_dnn_save(dnn, &err));
    apd_dnn_destroy(&dnn);
    text = text_of(path);
    assert_non_null(strstr(text, "\"nhwc\":[3,17,15,8]"));
    assert_non_null(strstr(text, "\"nhwc\":[2,9,9,8]"));
    free(text);
}

static void a_file_of_another_kind_is_left_alone_with_a_note(void **state)
{
    static const struct {
        const char *from, *to, *note;
    } damages[] = {
        {"\"stand-in\"", "\"another\"", "made for another, this is stand-in"},
        {"\"cudnn\": 9", "\"cudnn\": 8", "made by cuDNN 8"},
        {"\"format\": 1", "\"format\": 2", "format 2"},
        {"\"forward\"", "\"sideways\"", "sideways"},
        {"\"stride\":2", "\"stride\":\"2\"", "engine 0: "},
        {"[[2,2]]", "[[2,2,2]]", "engine 0: knobs"},
        {"[[2,2]]", "7", "engine 0: knobs"},
        {"[3,17,15,8]", "[3,17,15]", "engine 0: "},
        {"{\"op\"", "null,{\"op\"", "engine 0: "},
        {"]}\n", "", "line"},
        {"{\"format\"", "", "line"},
    };
    const char *path = scratch_path("engines");

    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct apd_dnn *dnn;
        struct apd_err err;

        write_engines(path);
        replace(path, damages[i].from, damages[i].to);
        dnn = dnn_case_library(path, 0);
        if (strstr(apd_dnn_engines_note(dnn), damages[i].note) == NULL)
            fail_msg("%s -> %s: \"%s\"", damages[i].from, damages[i].to, apd_dnn_engines_note(dnn));
        assert_string_equal(dnn_plan_info(dnn, &dnn_shapes[0]).name, "eng2 k2=2");
        GOOD(apd_dnn_save(dnn, &err));
        apd_dnn_destroy(&dnn);
        dnn = dnn_case_library(path, 0);
        assert_string_equal(apd_dnn_engines_note(dnn), "");
        apd_dnn_destroy(&dnn);
    }
}

static void every_torn_file_is_survived(void **state)
{
    const char *path = scratch_path("engines");
    char *text;

    (void)state;
    write_engines(path);
    text = text_of(path);
    for (size_t size = 0; size + 2 < strlen(text); size++) {
        struct apd_dnn *dnn;

        scratch_write(path, text, size);
        dnn = dnn_case_library(path, 0);
        assert_string_not_equal(apd_dnn_engines_note(dnn), "");
        apd_dnn_destroy(&dnn);
    }
    free(text);
}

static void engines_of_the_file_that_do_not_do_are_chosen_anew(void **state)
{
    static const struct {
        const char *from, *to;
    } engines[] = {
        {"\"engine\":2,\"knobs\":[[2,2]]", "\"engine\":0,\"knobs\":[]"}, /* varies */
        {"\"engine\":2,\"knobs\":[[2,2]]", "\"engine\":1,\"knobs\":[]"}, /* rounds */
        {"\"engine\":2", "\"engine\":99"},                               /* there is none */
        {"\"engine\":2", "\"engine\":-9223372036854775807"},             /* likewise */
        {"[[2,2]]", "[[2,77]]"},                                         /* nor such a knob */
        {"[[2,2]]", "[[4000000000,2]]"},
    };
    const char *path = scratch_path("engines");

    (void)state;
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        struct apd_dnn *dnn;

        write_engines(path);
        replace(path, engines[i].from, engines[i].to);
        dnn = dnn_case_library(path, 0);
        assert_string_equal(apd_dnn_engines_note(dnn), "");
        assert_string_equal(apd_dnn_replaced(dnn), "");
        assert_string_equal(dnn_plan_info(dnn, &dnn_shapes[0]).name, "eng2 k2=2");
        assert_string_equal(apd_dnn_replaced(dnn),
                            "forward f32 3x17x15x8 -> 24 7x7/2 pad 3 groups 1: the file's engine "
                            "cannot be had, now eng2 k2=2");
        apd_dnn_destroy(&dnn);
    }
}

/* The engine that took the place of one that does not run is the one of the next start. */
static void a_replaced_engine_is_written(void **state)
{
    const char *path = scratch_path("engines");
    struct test_random random = {9};
    struct apd_dnn *dnn;
    struct apd_err err;
    struct dnn_case b;

    (void)state;
    write_engines(path);
    dnn = dnn_case_library(path, 0);
    dnn_case_init(&b, &dnn_shapes[0], &random);
    setenv("STANDIN_CUDNN_UNFIT", "2", 1);
    dnn_run(dnn, &b, NULL);
    unsetenv("STANDIN_CUDNN_UNFIT");
    GOOD(apd_dnn_save(dnn, &err));
    apd_dnn_destroy(&dnn);
    dnn = dnn_case_library(path, 0);
    assert_int_equal(dnn_plan_info(dnn, &dnn_shapes[0]).engine, ENGINE_SIMPLE);
    dnn_case_fini(&b);
    apd_dnn_destroy(&dnn);
}

static void a_file_that_cannot_be_written_is_an_error(void **state)
{
    struct apd_dnn *dnn = dnn_case_library(scratch_path("no folder/engines"), 0);
    struct apd_err err;

    (void)state;
    assert_string_equal(apd_dnn_engines_note(dnn), "");
    GOOD(apd_dnn_save(dnn, &err));
    (void)dnn_plan_info(dnn, &dnn_shapes[0]);
    assert_int_equal(apd_dnn_save(dnn, &err), APD_IO);
    apd_dnn_destroy(&dnn);
}

static int make_folder(void **state)
{
    (void)state;
    return scratch_create() == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restart_takes_the_engines_of_the_file),
        cmocka_unit_test(a_file_of_another_kind_is_left_alone_with_a_note),
        cmocka_unit_test(every_torn_file_is_survived),
        cmocka_unit_test(engines_of_the_file_that_do_not_do_are_chosen_anew),
        cmocka_unit_test(a_replaced_engine_is_written),
        cmocka_unit_test(a_file_that_cannot_be_written_is_an_error),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
