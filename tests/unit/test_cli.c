/* Parts of the command without a run: the policy of restarts, what people read, options of a
 * status. */
#include "base/err.h"
#include "cli/fields.h"
#include "cli/launch.h"
#include "cli/report.h"
#include "cli/restart.h"
#include "cli/view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define EXITED(code) ((code) << 8) /* as waitpid() says it */

static struct apd_restart restart;
static int exit_status;

static enum apd_next decide(int wait_status, const char *text, int asked)
{
    json_t *status = text != NULL ? json_loads(text, 0, NULL) : NULL;
    enum apd_next next;

    assert_true(text == NULL || status != NULL);
    next = apd_restart_decide(&restart, wait_status, status, asked, &exit_status);
    json_decref(status);
    return next;
}

static int fresh(void **state)
{
    (void)state;
    apd_restart_init(&restart, 5, NULL);
    exit_status = -1;
    return 0;
}

static void complete_run_is_reported(void **state)
{
    (void)state;
    assert_int_equal(decide(0, "{\"state\":\"done\",\"step\":10,\"steps_total\":10}", 0),
                     APD_NEXT_REPORT);
    assert_int_equal(exit_status, 0);
    /* also if the last save and a signal met */
    assert_int_equal(decide(EXITED(75), "{\"state\":\"done\",\"step\":10,\"steps_total\":10}", 1),
                     APD_NEXT_REPORT);
}

static void drained_run_leaves_with_75(void **state)
{
    (void)state;
    assert_int_equal(decide(EXITED(75), "{\"state\":\"done\",\"step\":4,\"steps_total\":10}", 0),
                     APD_NEXT_LEAVE);
    assert_int_equal(exit_status, 75);
    assert_int_equal(decide(SIGKILL, NULL, 1), APD_NEXT_LEAVE);
    assert_int_equal(exit_status, 75);
}

static void errors_that_would_repeat_are_final(void **state)
{
    static const int codes[] = {64, 65, 78};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(decide(EXITED(codes[i]), "{\"state\":\"failed\",\"step\":4}", 0),
                         APD_NEXT_LEAVE);
        assert_int_equal(exit_status, codes[i]);
    }
}

static void lost_worker_starts_again_until_the_limit(void **state)
{
    char text[96];

    (void)state;
    for (int i = 1; i <= 5; i++) {
        (void)snprintf(text, sizeof text, "{\"state\":\"failed\",\"step\":%d}", i);
        assert_int_equal(decide(EXITED(137), text, 0), APD_NEXT_START);
        assert_int_equal(restart.restarts, i);
    }
    assert_int_equal(decide(EXITED(137), "{\"state\":\"failed\",\"step\":9}", 0), APD_NEXT_LEAVE);
    assert_int_equal(exit_status, 75);
}

static void three_starts_without_progress_end_the_run(void **state)
{
    static const char at_4[] = "{\"state\":\"failed\",\"step\":4,\"checkpoint\":{\"step\":3}}";

    (void)state;
    assert_int_equal(decide(EXITED(139), at_4, 0), APD_NEXT_START);
    assert_int_equal(decide(EXITED(139), at_4, 0), APD_NEXT_START);
    assert_int_equal(decide(EXITED(139), NULL, 0), APD_NEXT_START);
    assert_int_equal(decide(EXITED(139), at_4, 0), APD_NEXT_LEAVE);
    assert_int_equal(exit_status, 70);
}

static void newer_checkpoint_is_progress(void **state)
{
    char text[96];

    (void)state;
    for (int i = 1; i <= 5; i++) {
        (void)snprintf(text, sizeof text,
                       "{\"state\":\"failed\",\"step\":90,\"checkpoint\":{\"step\":%d}}", i);
        assert_int_equal(decide(EXITED(75), text, 0), APD_NEXT_START);
    }
}

static void lost_peers_without_progress_are_unavailable(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(decide(EXITED(75), NULL, 0), APD_NEXT_START);
    assert_int_equal(decide(EXITED(75), NULL, 0), APD_NEXT_LEAVE);
    assert_int_equal(exit_status, 69);
}

static void first_start_refused_is_not_repeated(void **state)
{
    static const char no_gpu[] = "{\"state\":\"failed\",\"first_cause\":\"no GPU is visible\"}";

    (void)state;
    assert_int_equal(decide(EXITED(69), no_gpu, 0), APD_NEXT_LEAVE);
    assert_int_equal(exit_status, 69);
    apd_restart_init(&restart, 5, NULL);
    assert_int_equal(decide(EXITED(69), NULL, 0), APD_NEXT_START); /* perhaps killed */
    apd_restart_init(&restart, 5, NULL);
    assert_int_equal(decide(EXITED(137), "{\"state\":\"failed\",\"step\":4}", 0), APD_NEXT_START);
    assert_int_equal(decide(EXITED(69), no_gpu, 0), APD_NEXT_START); /* it trained before */
    apd_restart_init(&restart, 5, NULL);
    assert_int_equal(
        decide(EXITED(69), "{\"state\":\"failed\",\"step\":4,\"first_cause\":\"ECC\"}", 0),
        APD_NEXT_START);
}

/* mpirun tells of the rank that ended first. */
static void status_of_the_first_cause_counts(void **state)
{
    static const char no_gpu[] =
        "{\"state\":\"failed\",\"first_cause\":\"no GPU is visible\",\"exit_status\":69}";
    static const char bad_data[] =
        "{\"state\":\"failed\",\"step\":4,\"first_cause\":\"bad\",\"exit_status\":65}";
    static const char lost[] = "{\"state\":\"failed\",\"first_cause\":\"lost\",\"exit_status\":75}";
    static const char going[] =
        "{\"state\":\"ending\",\"first_cause\":\"lost\",\"exit_status\":null}";

    (void)state;
    assert_int_equal(decide(EXITED(75), no_gpu, 0), APD_NEXT_LEAVE);
    assert_int_equal(exit_status, 69);
    assert_int_equal(decide(EXITED(75), bad_data, 0), APD_NEXT_LEAVE);
    assert_int_equal(exit_status, 65);
    assert_int_equal(decide(EXITED(78), going, 0), APD_NEXT_LEAVE);
    assert_int_equal(exit_status, 78);
    apd_restart_init(&restart, 5, NULL);
    for (int i = 0; i < 2; i++)
        assert_int_equal(decide(EXITED(139), lost, 0), APD_NEXT_START);
    assert_int_equal(decide(EXITED(139), lost, 0), APD_NEXT_LEAVE);
    assert_int_equal(exit_status, 70); /* a crash, not only a lost peer */
}

static void numbers_are_written_for_people(void **state)
{
    char out[APD_NUMBER_MAX];

    (void)state;
    assert_string_equal(apd_grouped(0, out), "0");
    assert_string_equal(apd_grouped(999, out), "999");
    assert_string_equal(apd_grouped(1281167, out), "1,281,167");
    assert_string_equal(apd_grouped(UINT64_MAX, out), "18,446,744,073,709,551,615");
    assert_string_equal(apd_duration(0, out), "0:00");
    assert_string_equal(apd_duration(59.6, out), "1:00");
    assert_string_equal(apd_duration(3725, out), "1:02:05");
    assert_string_equal(apd_duration(-5, out), "0:00");
}

static const char *const full =
    "{\"run_dir\":\"/r\",\"state\":\"training\",\"generation\":2,\"mode\":\"fast_advprop\","
    "\"model\":\"resnet18\",\"step\":50,\"steps_total\":200,\"epoch\":0,\"epochs_total\":2,"
    "\"images_per_s\":1234.5,\"eta_s\":75,\"data_wait_share\":0.125,\"loss_clean_mean\":0.5,\"loss_"
    "noise_mean\":0.75,"
    "\"loss_adv_mean\":1.25,\"last\":{\"lr\":0.05},"
    "\"receipt\":[{\"epoch\":0,\"samples\":60000,\"samples_expected\":60000,\"complete\":true,"
    "\"match\":true},{\"epoch\":1,\"samples\":10,\"samples_expected\":60000}],"
    "\"evaluation\":[{\"epoch\":1,\"name\":\"main\",\"images\":10000,\"top1\":8000},"
    "{\"epoch\":1,\"name\":\"aux\",\"images\":10000,\"top1\":7000},"
    "{\"epoch\":2,\"name\":\"main\",\"images\":10000,\"top1\":9012},"
    "{\"epoch\":2,\"name\":\"aux\",\"images\":10000,\"top1\":8950},"
    "{\"epoch\":2,\"name\":\"main-pgd10\",\"images\":1000,\"top1\":655}],"
    "\"notice\":\"fc is new\","
    "\"checkpoint\":{\"step\":40,\"path\":\"checkpoints/x\",\"sha256\":\"abc\"},"
    "\"worker\":[{\"rank\":1,\"host\":\"h\",\"pid\":7,\"phase\":\"noise_pass\",\"step\":50,"
    "\"lane_first\":0,\"lane_count\":2,\"connected\":true}]}";

static char *view(void (*print)(const json_t *, FILE *), const char *text)
{
    json_t *status = json_loads(text, 0, NULL);
    char *out = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&out, &size);

    assert_non_null(status);
    assert_non_null(file);
    print(status, file);
    fclose(file);
    json_decref(status);
    return out;
}

static void expect_words(const char *text, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strstr(text, *words) == NULL)
            fail_msg("expected \"%s\" in:\n%s", *words, text);
}

static void status_page_shows_everything(void **state)
{
    static const char *const words[] = {"training",
                                        "start 2",
                                        "step 50 of 200 (25.0 %)",
                                        "1,234 images/s",
                                        "1:15 left",
                                        "12.5 % of the time of steps",
                                        "clean 0.5000",
                                        "60,000 of 60,000 receipts match",
                                        "main 80.00 %, aux 70.00 %",
                                        "step 40",
                                        "sha256 abc",
                                        "noise_pass",
                                        "0-1",
                                        "fc is new",
                                        NULL};
    char *text = view(apd_view_status, full);

    (void)state;
    expect_words(text, words);
    free(text);
}

static void empty_status_shows_without_crash(void **state)
{
    char *text = view(apd_view_status, "{\"receipt\":7,\"worker\":{},\"step\":\"x\"}");

    (void)state;
    assert_non_null(strstr(text, "step 0 of 0"));
    free(text);
}

static void print_report(const json_t *status, FILE *out)
{
    apd_report_print(status, "/abs/r", 2310.4, out);
}

static void report_shows_the_newest_accuracies(void **state)
{
    static const char *const words[] = {"90.12 %",
                                        "89.50 %",
                                        "under attack (main-pgd10)",
                                        "65.50 %",
                                        "2,310 images/s",
                                        "receipts match",
                                        "/abs/r/checkpoints/x",
                                        "sha256 abc",
                                        "advprop status '/abs/r'",
                                        "fc is new",
                                        NULL};
    char *text = view(print_report, full);

    (void)state;
    expect_words(text, words);
    assert_null(strstr(text, "80.00"));
    free(text);
}

static void progress_fits_the_terminal(void **state)
{
    json_t *status = json_loads(full, 0, NULL);
    char line[512];

    (void)state;
    apd_view_progress(status, 0, line, sizeof line);
    assert_non_null(strstr(line, "epoch 1/2"));
    assert_non_null(strstr(line, "loss 0.500 0.750 1.250"));
    assert_non_null(strstr(line, "eta 1:15"));
    assert_null(strstr(line, "[="));
    apd_view_progress(status, 120, line, sizeof line);
    assert_non_null(strstr(line, "[=====>"));
    for (unsigned columns = 1; columns < 200; columns++) {
        apd_view_progress(status, columns, line, sizeof line);
        assert_true(strlen(line) < columns);
    }
    json_decref(status);
}

static void printed_line_is_quoted_for_a_shell(void **state)
{
    struct apd_command_line line = {0};
    struct apd_err err = {0};
    char *out = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&out, &size);

    (void)state;
    assert_int_equal(apd_command_line_add(&line, &err, "mpirun"), APD_OK);
    assert_int_equal(apd_command_line_add(&line, &err, "it's %d", 7), APD_OK);
    apd_launch_print(&line, 1, file);
    fclose(file);
    assert_non_null(strstr(out, "mpirun 'it'\\''s 7'\n"));
    assert_non_null(strstr(out, "OMPI_MCA_mpi_yield_when_idle=1"));
    free(out);
    apd_command_line_fini(&line);
}

static void too_many_arguments_are_an_error(void **state)
{
    struct apd_command_line line = {0};
    struct apd_err err = {0};
    enum apd_code rc = APD_OK;
    int i = 0;

    (void)state;
    for (; rc == APD_OK && i < 2 * APD_COMMAND_MAX; i++)
        rc = apd_command_line_add(&line, &err, "x");
    assert_int_equal(rc, APD_USAGE);
    assert_int_equal(i, APD_COMMAND_MAX);
    assert_null(line.argv[line.count]);
    apd_command_line_fini(&line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(complete_run_is_reported, fresh),
        cmocka_unit_test_setup(drained_run_leaves_with_75, fresh),
        cmocka_unit_test_setup(errors_that_would_repeat_are_final, fresh),
        cmocka_unit_test_setup(lost_worker_starts_again_until_the_limit, fresh),
        cmocka_unit_test_setup(three_starts_without_progress_end_the_run, fresh),
        cmocka_unit_test_setup(newer_checkpoint_is_progress, fresh),
        cmocka_unit_test_setup(lost_peers_without_progress_are_unavailable, fresh),
        cmocka_unit_test_setup(first_start_refused_is_not_repeated, fresh),
        cmocka_unit_test_setup(status_of_the_first_cause_counts, fresh),
        cmocka_unit_test(numbers_are_written_for_people),
        cmocka_unit_test(status_page_shows_everything),
        cmocka_unit_test(empty_status_shows_without_crash),
        cmocka_unit_test(report_shows_the_newest_accuracies),
        cmocka_unit_test(progress_fits_the_terminal),
        cmocka_unit_test(printed_line_is_quoted_for_a_shell),
        cmocka_unit_test(too_many_arguments_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
