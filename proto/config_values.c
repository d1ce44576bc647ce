/* Values of options: text -> field with checks of type and range, field -> text, and what to say
 * about them. Knows the table's types, not its rows, and neither files nor overrides. */
#include "proto/config_options.h"
#include "proto/nearest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 64 /* bytes of a written number */
#define SHOWN_MAX  40 /* bytes of a bad value that a message repeats */

static void *field_of(const struct apd_option *option, struct apd_config *config)
{
    return (char *)config + option->offset;
}

static int64_t *count_of(const struct apd_option *option, struct apd_config *config)
{
    return (int64_t *)((char *)config + option->count_offset);
}

const struct apd_option *apd_option_find(const char *key)
{
    for (size_t i = 0; i < apd_option_count; i++)
        if (strcmp(apd_options[i].key, key) == 0)
            return &apd_options[i];
    return NULL;
}

const char *apd_option_nearest(const char *key)
{
    const char *keys[128];
    size_t n = apd_option_count < 128 ? apd_option_count : 128;

    for (size_t i = 0; i < n; i++)
        keys[i] = apd_options[i].key;
    return apd_nearest(key, keys, n);
}

/* Shortest form that reads back to the same value. */
static void print_number(double value, char *out, size_t size)
{
    if (value == floor(value) && fabs(value) < 0x1p53) {
        (void)snprintf(out, size, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(out, size, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            return;
    }
}

static int may_be_auto(const struct apd_option *option)
{
    return option->type <= APD_OPTION_ENUM && strcmp(option->initial, "auto") == 0;
}

static void list_words(const char *const *words, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; words[i] != NULL && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", words[i]);
}

static void expect_number(const struct apd_option *option, const char *what, char *out, size_t size)
{
    char low[NUMBER_MAX], high[NUMBER_MAX];

    print_number(option->min, low, sizeof low);
    print_number(option->max, high, sizeof high);
    if (option->max >= 0x1p63)
        (void)snprintf(high, sizeof high, "2^63 - 1");
    (void)snprintf(out, size, "%s from %s to %s", what, low, high);
}

void apd_option_expectation(const struct apd_option *option, char *out, size_t size)
{
    char words[256];

    if (may_be_auto(option)) {
        int n = snprintf(out, size, "auto, ");

        out += n;
        size -= (size_t)n;
    }
    switch (option->type) {
    case APD_OPTION_INT:
        expect_number(option, "a whole number", out, size);
        return;
    case APD_OPTION_REAL:
        expect_number(option, "a number", out, size);
        return;
    case APD_OPTION_REALS:
        expect_number(option, "a list [a, b, ...] of numbers", out, size);
        return;
    case APD_OPTION_BOOL:
        (void)snprintf(out, size, "on or off");
        return;
    case APD_OPTION_TEXT:
        (void)snprintf(out, size, "a text of at most %zu bytes", option->size - 1);
        return;
    case APD_OPTION_ENUM:
    case APD_OPTION_WORD:
        list_words(option->words, words, sizeof words);
        (void)snprintf(out, size, "%s%s", option->words[1] != NULL ? "one of " : "", words);
        return;
    }
    out[0] = '\0';
}

/* Says what was expected and shows the start of what was found, unprintable bytes as '?'. */
static enum apd_code refuse(const struct apd_option *option, const char *text, size_t size,
                            struct apd_err *err)
{
    char expected[320], shown[SHOWN_MAX + 1];
    size_t n = size < SHOWN_MAX ? size : SHOWN_MAX;

    for (size_t i = 0; i < n; i++)
        shown[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    shown[n] = '\0';
    apd_option_expectation(option, expected, sizeof expected);
    return apd_fail(err, APD_CONFIG, "expected %s, found \"%s%s\"", expected, shown,
                    n < size ? "..." : "");
}

/* Decimal notation only: what strtod also takes (hexadecimal, inf, nan) is refused. */
static int parse_real(const char *text, size_t size, double *out)
{
    char copy[NUMBER_MAX], *end;

    if (size == 0 || size >= sizeof copy || strspn(text, "0123456789+-.eE") < size)
        return 0;
    memcpy(copy, text, size);
    copy[size] = '\0';
    *out = strtod(copy, &end) + 0.0; /* no -0: it would be another text of the same value */
    return *end == '\0' && isfinite(*out);
}

static int parse_int(const char *text, size_t size, int64_t *out)
{
    char copy[NUMBER_MAX], *end;

    if (size == 0 || size >= sizeof copy || strspn(text, "0123456789+-") < size)
        return 0;
    memcpy(copy, text, size);
    copy[size] = '\0';
    errno = 0;
    *out = strtoll(copy, &end, 10);
    return *end == '\0' && errno == 0;
}

static int parse_bool(const char *text, size_t size, int64_t *out)
{
    static const char *const words[] = {"off", "on", "false", "true"};

    for (int i = 0; i < 4; i++)
        if (strlen(words[i]) == size && memcmp(words[i], text, size) == 0) {
            *out = i & 1;
            return 1;
        }
    return 0;
}

static int find_word(const char *const *words, const char *text, size_t size)
{
    for (int i = 0; words[i] != NULL; i++)
        if (strlen(words[i]) == size && memcmp(words[i], text, size) == 0)
            return i;
    return -1;
}

/* Length of the UTF-8 sequence at `s`, 0 if it is malformed or a character YAML cannot hold as it
 * is. */
static size_t printable_length(const unsigned char *s, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    uint32_t c;

    if (n == 0 || n > left)
        return 0;
    c = n == 1 ? s[0] : s[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if (s[i] >> 6 != 2)
            return 0;
        c = c << 6 | (s[i] & 0x3fu);
    }
    if (c < least[n] || c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0xd800 && c < 0xe000) ||
        c == 0xfeff || c == 0xfffe || c == 0xffff || c > 0x10ffff)
        return 0;
    return n;
}

static enum apd_code set_text(const struct apd_option *option, const char *text, size_t size,
                              char *out, struct apd_err *err)
{
    if (size >= option->size)
        return refuse(option, text, size, err);
    for (size_t i = 0, n; i < size; i += n) {
        n = printable_length((const unsigned char *)text + i, size - i);
        if (n == 0)
            return apd_fail(err, APD_CONFIG, "byte %zu (0x%02x) is a control character or no UTF-8",
                            i, (unsigned)(unsigned char)text[i]);
    }
    memset(out, 0, option->size);
    memcpy(out, text, size);
    return APD_OK;
}

void apd_option_clear(const struct apd_option *option, struct apd_config *config)
{
    memset(field_of(option, config), 0, option->size * sizeof(double));
    *count_of(option, config) = 0;
}

enum apd_code apd_option_append(const struct apd_option *option, const char *text, size_t size,
                                struct apd_config *config, struct apd_err *err)
{
    int64_t *count = count_of(option, config);
    double value;

    if (!parse_real(text, size, &value) || value < option->min || value > option->max)
        return refuse(option, text, size, err);
    if ((size_t)*count >= option->size)
        return apd_fail(err, APD_CONFIG, "expected at most %zu numbers", option->size);
    ((double *)field_of(option, config))[(*count)++] = value;
    return APD_OK;
}

/* "[1, 2]", "1,2", "[]" */
static enum apd_code set_list(const struct apd_option *option, const char *text, size_t size,
                              struct apd_config *config, struct apd_err *err)
{
    const char *at = text, *end = text + size;

    apd_option_clear(option, config);
    if (size >= 2 && *at == '[' && end[-1] == ']') {
        at++;
        end--;
    }
    while (at < end && *at == ' ')
        at++;
    while (at < end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma != NULL ? comma : end;
        const char *first = at, *last = stop;

        while (first < last && *first == ' ')
            first++;
        while (first < last && last[-1] == ' ')
            last--;
        APD_TRY(apd_option_append(option, first, (size_t)(last - first), config, err));
        at = comma != NULL ? comma + 1 : end;
        if (comma != NULL && at == end)
            return refuse(option, text, size, err);
    }
    return APD_OK;
}

enum apd_code apd_option_set(const struct apd_option *option, const char *text, size_t size,
                             struct apd_config *config, struct apd_err *err)
{
    void *field = field_of(option, config);
    int64_t whole = 0;
    double real = 0;
    int word;

    if (may_be_auto(option) && size == 4 && memcmp(text, "auto", 4) == 0) {
        if (option->type == APD_OPTION_REAL)
            *(double *)field = APD_AUTO;
        else
            *(int64_t *)field = APD_AUTO;
        return APD_OK;
    }
    switch (option->type) {
    case APD_OPTION_INT:
        if (!parse_int(text, size, &whole) || (double)whole < option->min ||
            (double)whole > option->max)
            return refuse(option, text, size, err);
        *(int64_t *)field = whole;
        return APD_OK;
    case APD_OPTION_REAL:
        if (!parse_real(text, size, &real) || real < option->min || real > option->max)
            return refuse(option, text, size, err);
        *(double *)field = real;
        return APD_OK;
    case APD_OPTION_BOOL:
        if (!parse_bool(text, size, &whole))
            return refuse(option, text, size, err);
        *(int64_t *)field = whole;
        return APD_OK;
    case APD_OPTION_ENUM:
    case APD_OPTION_WORD:
        word = find_word(option->words, text, size);
        if (word < 0)
            return refuse(option, text, size, err);
        if (option->type == APD_OPTION_WORD)
            return set_text(option, text, size, field, err);
        *(int64_t *)field = word;
        return APD_OK;
    case APD_OPTION_TEXT:
        return set_text(option, text, size, field, err);
    case APD_OPTION_REALS:
        return set_list(option, text, size, config, err);
    }
    return apd_fail(err, APD_BUG, "option %s has an unknown type", option->key);
}

static void format_text(const char *text, char *out)
{
    *out++ = '"';
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            *out++ = '\\';
        *out++ = *text;
    }
    *out++ = '"';
    *out = '\0';
}

static void format_list(const double *values, int64_t count, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "[");

    for (int64_t i = 0; i < count; i++) {
        char number[NUMBER_MAX];

        print_number(values[i], number, sizeof number);
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", number);
    }
    (void)snprintf(out + used, size - used, "]");
}

void apd_option_format(const struct apd_option *option, const struct apd_config *config,
                       char out[APD_OPTION_VALUE_MAX])
{
    const void *field = (const char *)config + option->offset;

    switch (option->type) {
    case APD_OPTION_INT:
        (void)snprintf(out, APD_OPTION_VALUE_MAX, "%lld", (long long)*(const int64_t *)field);
        return;
    case APD_OPTION_REAL:
        print_number(*(const double *)field, out, APD_OPTION_VALUE_MAX);
        return;
    case APD_OPTION_BOOL:
        (void)snprintf(out, APD_OPTION_VALUE_MAX, "%s", *(const int64_t *)field ? "on" : "off");
        return;
    case APD_OPTION_ENUM:
        (void)snprintf(out, APD_OPTION_VALUE_MAX, "%s", option->words[*(const int64_t *)field]);
        return;
    case APD_OPTION_WORD:
        (void)snprintf(out, APD_OPTION_VALUE_MAX, "%s", (const char *)field);
        return;
    case APD_OPTION_TEXT:
        format_text(field, out);
        return;
    case APD_OPTION_REALS:
        format_list(field, *(const int64_t *)((const char *)config + option->count_offset), out,
                    APD_OPTION_VALUE_MAX);
        return;
    }
    out[0] = '\0';
}
