/* run.yaml: every kind of error with its place, the round trip, the digest, cross checks, the
 * same-budget rule; and that damaged files are errors or other valid files, never crashes. */
#include "base/fs.h"
#include "proto/config.h"
#include "proto/config_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/apd-config-XXXXXX";

static const char *const example = "# a comment\n"
                                   "seed: 7\n"
                                   "model:\n"
                                   "  arch: resnet18\n"
                                   "  width: 16\n"
                                   "data: {path: \"/data/f\\\"m\", shuffle: off}\n"
                                   "schedule:\n"
                                   "  milestones: [1, 2.5, 1e1]\n"
                                   "attack.eps: 2\n";

static int make_file(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static enum apd_code load_bytes(const char *text, size_t size, struct apd_config *config,
                                struct apd_err *err)
{
    assert_int_equal(apd_write_file(path, text, size, 0, err), APD_OK);
    return apd_config_load(path, NULL, 0, config, err);
}

static void expect_error(const char *text, const char *place, const char *words)
{
    struct apd_config config;
    struct apd_err err = {0};
    char prefix[128];

    assert_int_equal(load_bytes(text, strlen(text), &config, &err), APD_CONFIG);
    (void)snprintf(prefix, sizeof prefix, "%s%s", path, place);
    if (strncmp(err.msg, prefix, strlen(prefix)) != 0 || strstr(err.msg, words) == NULL)
        fail_msg("expected \"%s\" and \"%s\" in: %s", prefix, words, err.msg);
}

static void expect_override_error(const char *override, const char *words)
{
    struct apd_config config;
    struct apd_err err = {0};

    assert_int_equal(apd_config_load(NULL, &override, 1, &config, &err), APD_CONFIG);
    if (strstr(err.msg, words) == NULL)
        fail_msg("expected \"%s\" in: %s", words, err.msg);
}

static void example_file_sets_values(void **state)
{
    struct apd_config c;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(load_bytes(example, strlen(example), &c, &err), APD_OK);
    assert_int_equal(c.seed, 7);
    assert_string_equal(c.model.arch, "resnet18");
    assert_int_equal(c.model.width, 16);
    assert_string_equal(c.data.path, "/data/f\"m");
    assert_int_equal(c.data.shuffle, 0);
    assert_int_equal(c.schedule.milestone_count, 3);
    assert_true(c.schedule.milestones[1] == 2.5 && c.schedule.milestones[2] == 10);
    assert_true(c.attack.eps == 2);
    assert_true(c.attack.noise_prob == 0.4207); /* untouched default */
}

static void overrides_win_over_file(void **state)
{
    const char *const overrides[] = {"seed=8", "schedule.milestones=[3,4]", "data.path=/a=b c",
                                     "train.mode=vanilla"};
    struct apd_config c;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(apd_write_file(path, example, strlen(example), 0, &err), APD_OK);
    assert_int_equal(apd_config_load(path, overrides, 4, &c, &err), APD_OK);
    assert_int_equal(c.seed, 8);
    assert_int_equal(c.schedule.milestone_count, 2);
    assert_true(c.schedule.milestones[0] == 3 && c.schedule.milestones[2] == 0);
    assert_string_equal(c.data.path, "/a=b c");
    assert_int_equal(c.train.mode, APD_MODE_VANILLA);
}

static void empty_file_is_defaults(void **state)
{
    struct apd_config from_file, defaults;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(load_bytes("# nothing\n", 10, &from_file, &err), APD_OK);
    assert_int_equal(apd_config_load(NULL, NULL, 0, &defaults, &err), APD_OK);
    assert_memory_equal(&from_file, &defaults, sizeof defaults);
}

static void unknown_key_names_place_and_nearest(void **state)
{
    (void)state;
    expect_error("attack:\n  eps: 1\n  nose_prob: 0\n",
                 ":3:3: ", "nearest one is attack.noise_prob");
    expect_error("sed: 1\n", ":1:1: ", "nearest one is seed");
    expect_error("completely_different_thing: 1\n", ":1:1: ", "advprop config explain");
    expect_error("attack:\n  eps:\n    deep: 1\n",
                 ":3:5: ", "expected a number from 0 to 255, found a group");
    expect_override_error("optim.l=1", "nearest one is optim.lr");
}

static void wrong_type_names_expected_and_found(void **state)
{
    (void)state;
    expect_error("seed: abc\n",
                 ":1:7: ", "seed: expected a whole number from 0 to 2^63 - 1, found \"abc\"");
    expect_error("seed: 1.5\n", ":1:7: ", "whole number");
    expect_error("seed:\n", ":1:6: ", "found \"\"");
    expect_error("optim:\n  lr: 0x1p3\n", ":2:7: ", "optim.lr: expected a number");
    expect_error("optim:\n  lr: nan\n", ":2:7: ", "optim.lr: expected a number");
    expect_error("data:\n  shuffle: yes\n", ":2:12: ", "expected on or off, found \"yes\"");
    expect_error("train:\n  mode: adv\n", ":2:9: ", "one of vanilla, advprop, fast_advprop");
    expect_error("model:\n  arch: resnet19\n", ":2:9: ", "resnet18, resnet34");
    expect_error("seed: [1]\n", ":1:7: ", "found a list");
    expect_error("schedule: {milestones: [1, x]}\n", ":1:28: ", "schedule.milestones");
    expect_error("schedule: {milestones: [[1]]}\n", ":1:25: ", "found a list");
    expect_error("schedule: {milestones: [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}\n",
                 ":1:64: ", "at most 16");
    expect_error("data: 3\n", ":1:1: ", "data is a group (data.format, ...)");
    expect_error("data: {path: \"a\\0b\"}\n", ":1:14: ", "control character");
    expect_override_error("schedule.milestones=1,,2", "expected a list");
    expect_override_error("schedule.milestones=1,", "expected a list");
    expect_override_error("data.path=\xc3(", "no UTF-8");
    expect_override_error("seed", "expected key=value");
}

static void out_of_range_names_range(void **state)
{
    char long_text[APD_TEXT + 32] = "data.path=";

    (void)state;
    expect_error("attack: {noise_prob: 1.5}\n", ":1:22: ", "from 0 to 1, found \"1.5\"");
    expect_error("train: {lanes: 0}\n", ":1:16: ", "from 1 to 65536");
    expect_error("seed: -1\n", ":1:7: ", "from 0");
    expect_error("seed: 99999999999999999999\n", ":1:7: ", "whole number");
    memset(long_text + 10, 'x', APD_TEXT);
    expect_override_error(long_text, "at most 1023 bytes");
}

static void duplicate_key_is_refused(void **state)
{
    (void)state;
    expect_error("seed: 1\nseed: 1\n", ":2:1: ", "seed is given twice");
    expect_error("attack: {eps: 1}\nattack.eps: 1\n", ":2:1: ", "attack.eps is given twice");
    expect_error("attack: {eps: 1}\nattack: {steps: 1}\n", ":2:1: ", "attack is given twice");
}

static void rest_of_yaml_is_refused(void **state)
{
    char long_key[256];

    (void)state;
    expect_error("seed: &a 1\n", ":1:7: ", "anchors");
    expect_error("seed: !!int 1\n", ":1:7: ", "tags");
    expect_error("seed: *a\n", ":1:7: ", "aliases");
    expect_error("&a seed: 1\n", ":1:1: ", "anchors");
    expect_error("<<: 1\n", ":1:1: ", "unknown option");
    expect_error("seed: 1\n---\nseed: 2\n", ":2:1: ", "one document");
    expect_error("- seed\n", ":1:1: ", "found a list");
    expect_error("seed\n", ":1:1: ", "found a single value");
    expect_error("? [seed]\n: 1\n", ":1:3: ", "found a list");
    expect_error("schedule: {milestones: [1\n", ":2:1: ", "no valid YAML");
    expect_error("seed: \xff\n", ": byte 6: ", "no valid YAML");
    memset(long_key, 'k', 200);
    strcpy(long_key + 200, ": 1\n");
    expect_error(long_key, ":1:1: ", "longer than any");
}

static void missing_folder_and_large_file_are_refused(void **state)
{
    static char large[70000];
    struct apd_config config;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(apd_config_load("/nonexistent/run.yaml", NULL, 0, &config, &err), APD_CONFIG);
    assert_non_null(strstr(err.msg, "/nonexistent/run.yaml"));
    assert_int_equal(apd_config_load("/tmp", NULL, 0, &config, &err), APD_CONFIG);
    memset(large, '\n', sizeof large);
    assert_int_equal(load_bytes(large, sizeof large, &config, &err), APD_CONFIG);
    assert_non_null(strstr(err.msg, "65536"));
}

static void printed_file_loads_to_same_values(void **state)
{
    const char *const overrides[] = {"data.path=/d/\xc3\xa4 \"q\" \\ # : é",
                                     "optim.lr=0.1000000001",
                                     "schedule.milestones=[]",
                                     "bn.eps=3e-7",
                                     "seed=9007199254740993",
                                     "optim.weight_decay=-0"};
    struct apd_config before, after;
    struct apd_err err = {0};
    char *first, *second;

    (void)state;
    assert_int_equal(apd_config_load(NULL, overrides, 6, &before, &err), APD_OK);
    assert_int_equal(apd_config_print(&before, &first, &err), APD_OK);
    assert_int_equal(load_bytes(first, strlen(first), &after, &err), APD_OK);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(apd_config_print(&after, &second, &err), APD_OK);
    assert_string_equal(first, second);
    free(first);
    free(second);
}

/* A text that differs from the option's default. */
static void other_value(const struct apd_option *option, const char *current, char *out,
                        size_t size)
{
    double number = fmin(option->min + 1, option->max);

    switch (option->type) {
    case APD_OPTION_INT:
    case APD_OPTION_REAL:
        (void)snprintf(out, size, "%.10g", number);
        if (atof(current) == number)
            (void)snprintf(out, size, "%g", option->min);
        return;
    case APD_OPTION_BOOL:
        (void)snprintf(out, size, "%s", strcmp(current, "on") == 0 ? "off" : "on");
        return;
    case APD_OPTION_ENUM:
    case APD_OPTION_WORD:
        for (size_t i = 0; option->words[i] != NULL; i++)
            if (strcmp(option->words[i], current) != 0)
                (void)snprintf(out, size, "%s", option->words[i]);
        return;
    case APD_OPTION_TEXT:
        (void)snprintf(out, size, "other");
        return;
    case APD_OPTION_REALS:
        (void)snprintf(out, size, "[17]");
        return;
    }
}

static void digest_follows_the_options_that_define_the_result(void **state)
{
    char digest[APD_SHA256_HEX], other[APD_SHA256_HEX], value[64], override[160];
    const char *overrides[] = {override};
    char current[APD_OPTION_VALUE_MAX];
    struct apd_config config, defaults;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(apd_config_load(NULL, NULL, 0, &defaults, &err), APD_OK);
    assert_int_equal(apd_config_digest(&defaults, digest, &err), APD_OK);
    for (size_t i = 0; i < apd_option_count; i++) {
        const struct apd_option *option = &apd_options[i];

        if (option->words != NULL && option->words[1] == NULL)
            continue; /* one value only */
        apd_option_format(option, &defaults, current);
        other_value(option, current, value, sizeof value);
        (void)snprintf(override, sizeof override, "%s=%s", option->key, value);
        if (apd_config_load(NULL, overrides, 1, &config, &err) != APD_OK)
            fail_msg("%s", err.msg);
        assert_int_equal(apd_config_digest(&config, other, &err), APD_OK);
        if ((strcmp(digest, other) != 0) != option->defines_result)
            fail_msg("%s: digest does not follow defines_result", option->key);
    }
}

static void table_is_sane(void **state)
{
    (void)state;
    assert_true(apd_option_count < 128);
    for (size_t i = 0; i < apd_option_count; i++) {
        size_t n = strlen(apd_options[i].help);

        assert_true(n > 10 && apd_options[i].help[n - 1] == '.');
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(apd_options[i].key, apd_options[j].key);
            assert_true(apd_options[i].offset != apd_options[j].offset);
        }
    }
}

static void expect_verdict(const char *const *overrides, size_t count, int64_t workers,
                           const char *words)
{
    const char *all[8] = {"data.path=/data"};
    struct apd_config config;
    struct apd_err err = {0};
    enum apd_code rc;

    memcpy(all + 1, overrides, count * sizeof *overrides);
    assert_int_equal(apd_config_load(NULL, all, count + 1, &config, &err), APD_OK);
    rc = apd_config_check(&config, workers, &err);
    if (words == NULL && rc != APD_OK)
        fail_msg("expected no error: %s", err.msg);
    if (words != NULL && (rc != APD_CONFIG || strstr(err.msg, words) == NULL))
        fail_msg("expected \"%s\" in: %s", words, rc == APD_OK ? "(no error)" : err.msg);
}

#define CHECK(workers, words, ...)                                                                 \
    do {                                                                                           \
        const char *const overrides_[] = {__VA_ARGS__};                                            \
        expect_verdict(overrides_, sizeof overrides_ / sizeof *overrides_, workers, words);        \
    } while (0)

static void senseless_combinations_are_refused(void **state)
{
    (void)state;
    CHECK(0, NULL, "seed=1");
    CHECK(4, NULL, "seed=1");
    CHECK(0, "data.path is not set", "data.path=");
    CHECK(5, "at most as many workers as lanes", "seed=1");
    CHECK(0, "every lane needs images", "train.batch=3", "train.lanes=4");
    CHECK(0, "does not divide into train.lanes", "train.batch=321");
    CHECK(0, "does not divide into train.clean_parts", "train.batch=324");
    CHECK(0, NULL, "train.batch=324", "train.mode=vanilla");
    CHECK(0, "auxiliary image", "train.batch=20");
    CHECK(0, "clean image", "train.batch=12", "train.clean_parts=1", "train.aux_parts=2");
    CHECK(0, "clean image", "train.batch=4", "train.mode=vanilla");
    CHECK(0, "label_smoothing", "train.label_smoothing=1");
    CHECK(0, "train.weight_clean is 0", "train.weight_clean=0");
    CHECK(0, "train.weight_noise is 0", "train.weight_noise=0");
    CHECK(0, "train.weight_adv is 0", "train.weight_adv=0", "attack.reuse_gradients=off");
    CHECK(0, NULL, "train.weight_noise=0", "train.weight_adv=0", "train.mode=vanilla");
    CHECK(0, "random labels", "attack.goal=targeted");
    CHECK(0, NULL, "attack.goal=targeted", "attack.reuse_gradients=off");
    CHECK(0, NULL, "train.mode=advprop");
    CHECK(0, "random labels", "train.mode=advprop", "attack.reuse_gradients=on");
    CHECK(0, "mixes nothing", "mix.noise=on");
    CHECK(0, "attacks no images", "mix.kind=mixup", "mix.adv=on", "train.mode=vanilla");
    CHECK(0, NULL, "mix.kind=cutmix", "mix.adv=on", "mix.noise=on");
    CHECK(0, "optim.ema_decay", "optim.ema_decay=1");
    CHECK(0, "train.epochs is 0", "train.epochs=0");
    CHECK(0, "rounds to 0", "train.epochs=0.5", "train.budget=same");
    CHECK(0, "not ascending", "schedule.milestones=[30,30]");
    CHECK(0, "longer than the 2 epochs", "train.epochs=2", "schedule.warmup_epochs=3");
}

static void lane_split_follows_the_ratio(void **state)
{
    const char *const vanilla[] = {"train.mode=vanilla"}, *const paired[] = {"train.mode=advprop"};
    struct apd_config config;
    struct apd_err err = {0};
    uint32_t clean, aux;

    (void)state;
    assert_int_equal(apd_config_load(NULL, NULL, 0, &config, &err), APD_OK);
    apd_config_lane_split(&config, &clean, &aux);
    assert_int_equal(clean, 64);
    assert_int_equal(aux, 16);
    assert_int_equal(apd_config_load(NULL, vanilla, 1, &config, &err), APD_OK);
    apd_config_lane_split(&config, &clean, &aux);
    assert_int_equal(clean, 80);
    assert_int_equal(aux, 0);
    assert_int_equal(apd_config_load(NULL, paired, 1, &config, &err), APD_OK);
    apd_config_lane_split(&config, &clean, &aux);
    assert_int_equal(clean, 80);
    assert_int_equal(aux, 80);
}

static void auto_means_what_the_mode_says(void **state)
{
    const char *const paired[] = {"train.mode=advprop"};
    const char *const told[] = {"train.mode=advprop", "attack.steps=2", "attack.shuffle=on",
                                "attack.goal=auto"};
    struct apd_config config;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(apd_config_load(NULL, NULL, 0, &config, &err), APD_OK);
    assert_true(config.attack.steps == 1 && config.train.weight_adv == 0.5);
    assert_true(config.attack.goal == APD_GOAL_UNTARGETED && config.attack.reuse_gradients == 1);
    assert_true(config.attack.bn_mode == APD_BN_MODE_TRAIN && config.attack.shuffle == 1);
    assert_int_equal(apd_config_load(NULL, paired, 1, &config, &err), APD_OK);
    assert_true(config.attack.steps == 5 && config.train.weight_adv == 1);
    assert_true(config.attack.goal == APD_GOAL_TARGETED && config.attack.reuse_gradients == 0);
    assert_true(config.attack.bn_mode == APD_BN_MODE_EVAL && config.attack.shuffle == 0);
    assert_int_equal(apd_config_load(NULL, told, 4, &config, &err), APD_OK);
    assert_true(config.attack.steps == 2 && config.attack.shuffle == 1);
    assert_true(config.attack.goal == APD_GOAL_TARGETED);
    expect_override_error("optim.lr=auto", "expected a number");
    expect_override_error("attack.goal=up", "expected auto, one of untargeted, targeted");
}

static void same_budget_gives_the_numbers_of_the_paper(void **state)
{
    static const double expected[] = {25, 50, 75, 83}, written[] = {30, 60, 90, 100};
    const char *const same[] = {"train.budget=same", "train.mode=fast_advprop", "attack.steps=1"};
    double epochs, milestones[APD_MILESTONES];
    struct apd_config config;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(apd_config_load(NULL, same, 3, &config, &err), APD_OK);
    apd_config_budget(&config, &epochs, milestones);
    assert_true(epochs == 88);
    assert_memory_equal(milestones, expected, sizeof expected);
    config.train.mode = APD_MODE_VANILLA;
    apd_config_budget(&config, &epochs, milestones);
    assert_true(epochs == 105);
    config.train.mode = APD_MODE_ADVPROP;
    config.attack.steps = 5;
    apd_config_budget(&config, &epochs, milestones);
    assert_true(epochs == 15);
    config.train.mode = APD_MODE_FAST_ADVPROP;
    config.train.budget = APD_BUDGET_AS_WRITTEN;
    apd_config_budget(&config, &epochs, milestones);
    assert_true(epochs == 105);
    assert_memory_equal(milestones, written, sizeof written);
}

/* Loads damaged bytes: either an error with words or values that print and load again. */
static void load_damaged(const char *bytes, size_t size)
{
    struct apd_config config, again;
    struct apd_err err = {0};
    char *yaml = NULL;

    if (load_bytes(bytes, size, &config, &err) != APD_OK) {
        assert_int_equal(err.code, APD_CONFIG);
        assert_true(strlen(err.msg) > strlen(path));
        return;
    }
    assert_int_equal(apd_config_print(&config, &yaml, &err), APD_OK);
    assert_int_equal(load_bytes(yaml, strlen(yaml), &again, &err), APD_OK);
    assert_memory_equal(&config, &again, sizeof config);
    free(yaml);
}

static void truncated_file_never_crashes(void **state)
{
    (void)state;
    for (size_t n = 0; n <= strlen(example); n++)
        load_damaged(example, n);
}

static void flipped_bits_never_crash(void **state)
{
    char bytes[512];
    size_t n = strlen(example);

    (void)state;
    assert_true(n < sizeof bytes);
    for (size_t i = 0; i < n; i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(bytes, example, n);
            bytes[i] = (char)(bytes[i] ^ (1 << bit));
            load_damaged(bytes, n);
        }
}

static void explain_names_default_range_and_nearest(void **state)
{
    struct apd_err err = {0};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    assert_non_null(out);
    assert_int_equal(apd_config_explain("attack.noise_prob", 0, out, &err), APD_OK);
    fflush(out);
    assert_non_null(strstr(text, "0.4207"));
    assert_non_null(strstr(text, "from 0 to 1"));
    assert_int_equal(apd_config_explain("attack.nois_prob", 0, out, &err), APD_USAGE);
    assert_non_null(strstr(err.msg, "attack.noise_prob"));
    assert_int_equal(apd_config_explain(NULL, 1, out, &err), APD_OK);
    fclose(out);
    for (size_t i = 0; i < apd_option_count; i++)
        assert_non_null(strstr(text, apd_options[i].key));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(example_file_sets_values),
        cmocka_unit_test(overrides_win_over_file),
        cmocka_unit_test(empty_file_is_defaults),
        cmocka_unit_test(unknown_key_names_place_and_nearest),
        cmocka_unit_test(wrong_type_names_expected_and_found),
        cmocka_unit_test(out_of_range_names_range),
        cmocka_unit_test(duplicate_key_is_refused),
        cmocka_unit_test(rest_of_yaml_is_refused),
        cmocka_unit_test(missing_folder_and_large_file_are_refused),
        cmocka_unit_test(printed_file_loads_to_same_values),
        cmocka_unit_test(digest_follows_the_options_that_define_the_result),
        cmocka_unit_test(table_is_sane),
        cmocka_unit_test(senseless_combinations_are_refused),
        cmocka_unit_test(lane_split_follows_the_ratio),
        cmocka_unit_test(auto_means_what_the_mode_says),
        cmocka_unit_test(same_budget_gives_the_numbers_of_the_paper),
        cmocka_unit_test(truncated_file_never_crashes),
        cmocka_unit_test(flipped_bits_never_crash),
        cmocka_unit_test(explain_names_default_range_and_nearest),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
