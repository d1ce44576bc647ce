/* The option table as text: the effective file, the digest, `advprop config explain` and the
 * reference page. */
#include "proto/config.h"
#include "proto/config_options.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of the part before the dot; 0 for an option of the top level. */
static size_t group_length(const char *key)
{
    const char *dot = strchr(key, '.');

    return dot != NULL ? (size_t)(dot - key) : 0;
}

static int same_group(const char *a, const char *b)
{
    size_t n = group_length(a);

    return n == group_length(b) && memcmp(a, b, n) == 0;
}

static void print_options(const struct apd_config *config, FILE *out)
{
    char value[APD_OPTION_VALUE_MAX];

    for (size_t i = 0; i < apd_option_count; i++) {
        const char *key = apd_options[i].key;
        size_t n = group_length(key);

        if (n > 0 && (i == 0 || !same_group(apd_options[i - 1].key, key)))
            fprintf(out, "%.*s:\n", (int)n, key);
        apd_option_format(&apd_options[i], config, value);
        fprintf(out, "%s%s: %s\n", n > 0 ? "  " : "", n > 0 ? key + n + 1 : key, value);
    }
}

enum apd_code apd_config_print(const struct apd_config *config, char **out_yaml,
                               struct apd_err *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        return apd_fail(err, APD_NOMEM, "memory for the effective configuration");
    print_options(config, out);
    if (fclose(out) != 0) {
        free(text);
        return apd_fail(err, APD_NOMEM, "memory for the effective configuration");
    }
    *out_yaml = text;
    return APD_OK;
}

enum apd_code apd_config_digest(const struct apd_config *config, char out[APD_SHA256_HEX],
                                struct apd_err *err)
{
    char value[APD_OPTION_VALUE_MAX];
    struct apd_sha256 *hash = NULL;
    enum apd_code rc = APD_OK;

    APD_GO(apd_sha256_create(&hash, err));
    for (size_t i = 0; i < apd_option_count; i++) {
        const struct apd_option *option = &apd_options[i];

        if (!option->defines_result)
            continue;
        apd_option_format(option, config, value);
        APD_GO(apd_sha256_update(hash, option->key, strlen(option->key) + 1, err));
        APD_GO(apd_sha256_update(hash, value, strlen(value) + 1, err));
    }
    rc = apd_sha256_hex(hash, out, err);
done:
    apd_sha256_destroy(&hash);
    return rc;
}

static void explain_for_people(const struct apd_option *option, FILE *out)
{
    char expected[320];

    apd_option_expectation(option, expected, sizeof expected);
    fprintf(out, "%s: %s", option->key, option->initial);
    if (*option->unit != '\0')
        fprintf(out, "  (%s)", option->unit);
    fprintf(out, "\n    %s\n    Takes %s. %s\n", option->help, expected,
            option->defines_result ? "Defines the result: fixed for a run directory."
                                   : "May change when a run goes on.");
}

static void explain_as_row(const struct apd_option *option, FILE *out)
{
    char expected[320];

    apd_option_expectation(option, expected, sizeof expected);
    fprintf(out, "| `%s` | `%s` | %s | %s%s%s | %s |\n", option->key, option->initial, option->help,
            expected, *option->unit != '\0' ? "; " : "", option->unit,
            option->defines_result ? "yes" : "no");
}

static void explain_page(FILE *out)
{
    fputs("# run.yaml\n\n"
          "Every option, its default and what it does. This page is the output of\n"
          "`advprop config explain --markdown`; a test holds the two equal.\n\n"
          "A file is a YAML mapping; groups nest (`attack:` and below it `eps: 1`) or are written "
          "with a\n"
          "dot (`attack.eps: 1`). Later `key=value` arguments of a command win over the file. "
          "Unknown\n"
          "options, values of another type or out of range, duplicate keys, anchors and further "
          "documents\n"
          "are errors that name file, line and column. *Fixed*: the option defines the result, so "
          "a run\n"
          "directory goes on only under the same value; all others may change when the run goes "
          "on.\n",
          out);
    for (size_t i = 0; i < apd_option_count; i++) {
        const char *key = apd_options[i].key;
        size_t n = group_length(key);

        if (i == 0 || !same_group(apd_options[i - 1].key, key))
            fprintf(out, "\n## %.*s\n\n%s", n > 0 ? (int)n : 7, n > 0 ? key : "General",
                    "| option | default | meaning | takes | fixed |\n|---|---|---|---|---|\n");
        explain_as_row(&apd_options[i], out);
    }
}

enum apd_code apd_config_explain(const char *key, int markdown, FILE *out, struct apd_err *err)
{
    const struct apd_option *option = key != NULL ? apd_option_find(key) : NULL;

    if (key != NULL && option == NULL) {
        const char *nearest = apd_option_nearest(key);

        return apd_fail(err, APD_USAGE, "unknown option %s%s%s", key,
                        nearest != NULL ? "; the nearest one is " : "",
                        nearest != NULL ? nearest : "");
    }
    if (markdown && option == NULL) {
        explain_page(out);
    } else if (markdown) {
        explain_as_row(option, out);
    } else if (option != NULL) {
        explain_for_people(option, out);
    } else {
        for (size_t i = 0; i < apd_option_count; i++)
            explain_for_people(&apd_options[i], out);
    }
    return ferror(out) ? apd_fail_errno(err, "writing the explanation") : APD_OK;
}
