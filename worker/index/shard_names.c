#include "worker/index/shard_names.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BRACES_MAX = 64 };

/* ---------------------------------------------------------------- lists */

enum apd_code apd_names_add(struct apd_names *names, const char *name, size_t size,
                            struct apd_err *err)
{
    if (names->count == APD_SHARD_NAMES_MAX)
        return apd_fail(err, APD_USAGE, "more than %d names", APD_SHARD_NAMES_MAX);
    if (names->count == names->capacity) {
        size_t capacity = names->capacity > 0 ? 2 * names->capacity : 64;
        char **grown = realloc(names->name, capacity * sizeof *grown);

        if (grown == NULL)
            return apd_fail(err, APD_NOMEM, "%zu names", capacity);
        names->name = grown;
        names->capacity = capacity;
    }
    names->name[names->count] = strndup(name, size);
    if (names->name[names->count] == NULL)
        return apd_fail(err, APD_NOMEM, "a name of %zu bytes", size);
    names->count++;
    return APD_OK;
}

void apd_names_fini(struct apd_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->name[i]);
    free(names->name);
    *names = (struct apd_names){0};
}

/* ---------------------------------------------------------------- braces */

/* text[0] is an opening brace: index of its partner, or of the end of the text. Counts commas that
 * belong to it. */
static size_t partner(const char *text, int *out_commas)
{
    int depth = 0;

    *out_commas = 0;
    for (size_t i = 0; text[i] != '\0'; i++) {
        depth += (text[i] == '{') - (text[i] == '}');
        *out_commas += depth == 1 && text[i] == ',';
        if (depth == 0)
            return i;
    }
    return strlen(text);
}

struct range {
    int64_t first, last;
    int digits; /* 0: as many as the number has */
};

static int parse_range(const char *text, struct range *out)
{
    char *end;
    const char *second;

    out->first = strtoll(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || strncmp(end, "..", 2) != 0 || out->first > INT_MAX)
        return 0;
    out->digits = text[0] == '0' && end - text > 1 ? (int)(end - text) : 0;
    second = end + 2;
    out->last = strtoll(second, &end, 10);
    if (second[0] < '0' || second[0] > '9' || *end != '}' || out->last > INT_MAX)
        return 0;
    if (second[0] == '0' && end - second > out->digits)
        out->digits = (int)(end - second);
    return out->digits < 20;
}

/* out: the first a_size bytes of a, then b. */
static enum apd_code join(const char *a, size_t a_size, const char *b, char out[PATH_MAX],
                          struct apd_err *err)
{
    int n = snprintf(out, PATH_MAX, "%.*s%s", (int)a_size, a, b);

    if (n >= 0 && n < PATH_MAX)
        return APD_OK;
    return apd_fail(err, APD_USAGE, "a name of %d bytes, expected below %d", n, PATH_MAX);
}

static enum apd_code expand(const char *done, const char *rest, struct apd_names *names,
                            struct apd_err *err);

/* done + middle + what `rest` expands to. */
static enum apd_code expand_with(const char *done, const char *middle, const char *rest,
                                 struct apd_names *names, struct apd_err *err)
{
    char text[PATH_MAX];

    APD_TRY(join(done, strlen(done), middle, text, err));
    return expand(text, rest, names, err);
}

static enum apd_code expand_range(const char *done, const struct range *range, const char *rest,
                                  struct apd_names *names, struct apd_err *err)
{
    int64_t step = range->first <= range->last ? 1 : -1;

    for (int64_t i = range->first;; i += step) {
        char number[32];
        (void)snprintf(number, sizeof number, "%0*" PRId64, range->digits, i);
        APD_TRY(expand_with(done, number, rest, names, err));
        if (i == range->last)
            return APD_OK;
    }
}

/* list: "a,b{0..3}}" up to its closing brace. The alternatives can hold braces of their own, so
 * they are expanded together with the rest. */
static enum apd_code expand_list(const char *done, const char *list, size_t size, const char *rest,
                                 struct apd_names *names, struct apd_err *err)
{
    size_t from = 0;
    int depth = 0;

    for (size_t i = 0; i <= size; i++) {
        char text[PATH_MAX];

        depth += i < size ? (list[i] == '{') - (list[i] == '}') : 0;
        if (i < size && (list[i] != ',' || depth > 0))
            continue;
        APD_TRY(join(list + from, i - from, rest, text, err));
        APD_TRY(expand(done, text, names, err));
        from = i + 1;
    }
    return APD_OK;
}

static enum apd_code expand(const char *done, const char *rest, struct apd_names *names,
                            struct apd_err *err)
{
    size_t open = strcspn(rest, "{"), close;
    char text[PATH_MAX];
    struct range range;
    int commas;

    if (rest[open] == '\0') {
        APD_TRY(join(done, strlen(done), rest, text, err));
        return apd_names_add(names, text, strlen(text), err);
    }
    if (open > 0) {
        APD_TRY(join(rest, open, "", text, err));
        return expand_with(done, text, rest + open, names, err);
    }
    close = partner(rest, &commas);
    if (rest[close] == '\0')
        return apd_fail(err, APD_USAGE, "\"%s\": there is no } for the {", rest);
    if (commas > 0)
        return expand_list(done, rest + 1, close - 1, rest + close + 1, names, err);
    if (parse_range(rest + 1, &range))
        return expand_range(done, &range, rest + close + 1, names, err);
    return apd_fail(err, APD_USAGE, "\"%.*s\": expected a range {0..9} or a list {a,b}",
                    (int)close + 1, rest);
}

enum apd_code apd_brace_expand(const char *pattern, struct apd_names *names, struct apd_err *err)
{
    int braces = 0;

    for (const char *at = pattern; *at != '\0'; at++)
        braces += *at == '{';
    if (braces > BRACES_MAX) /* each takes a few KiB of stack */
        return apd_fail(err, APD_USAGE, "%d braces in a pattern, expected at most %d", braces,
                        BRACES_MAX);
    return expand("", pattern, names, err);
}

/* ---------------------------------------------------------------- files */

static enum apd_code add_glob(const char *pattern, struct apd_names *names, struct apd_err *err)
{
    enum apd_code rc = APD_OK;
    glob_t found = {0};
    int failed = glob(pattern, 0, NULL, &found);

    if (failed != 0) {
        rc = failed == GLOB_NOMATCH ? apd_fail(err, APD_CONFIG, "no file matches %s", pattern)
                                    : apd_fail_errno(err, "reading the folders of %s", pattern);
        goto done;
    }
    for (size_t i = 0; i < found.gl_pathc; i++)
        APD_GO(apd_names_add(names, found.gl_pathv[i], strlen(found.gl_pathv[i]), err));
done:
    globfree(&found);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Not by glob(3): the folder's name can hold its special characters. */
static enum apd_code add_folder(const char *folder, struct apd_names *names, struct apd_err *err)
{
    size_t before = names->count;
    enum apd_code rc = APD_OK;
    struct dirent *entry;
    DIR *dir = opendir(folder);

    if (dir == NULL)
        return apd_fail_errno(err, "opening folder %s", folder);
    while (errno = 0, (entry = readdir(dir)) != NULL) {
        size_t n = strlen(entry->d_name);
        char *path = NULL;
        int length;

        if (entry->d_name[0] == '.' || n < 4 || strcmp(entry->d_name + n - 4, ".tar") != 0)
            continue;
        length = asprintf(&path, "%s/%s", folder, entry->d_name);
        rc = length < 0 ? apd_fail(err, APD_NOMEM, "names of %s", folder)
                        : apd_names_add(names, path, (size_t)length, err);
        if (length >= 0)
            free(path);
        if (rc != APD_OK)
            goto done;
    }
    if (errno != 0)
        rc = apd_fail_errno(err, "reading folder %s", folder);
    else if (names->count == before)
        rc = apd_fail(err, APD_CONFIG, "%s has no *.tar", folder);
    else
        qsort(names->name + before, names->count - before, sizeof *names->name, by_name);
done:
    closedir(dir);
    return rc;
}

static enum apd_code add_one(const char *pattern, struct apd_names *names, struct apd_err *err)
{
    struct stat st;

    if (stat(pattern, &st) == 0)
        return S_ISDIR(st.st_mode) ? add_folder(pattern, names, err)
                                   : apd_names_add(names, pattern, strlen(pattern), err);
    if (strpbrk(pattern, "*?[") != NULL)
        return add_glob(pattern, names, err);
    return apd_fail(err, APD_CONFIG, "%s: %s", pattern, strerror(errno));
}

enum apd_code apd_shard_names(const char *pattern, struct apd_names *names, struct apd_err *err)
{
    struct apd_names expanded = {0};
    enum apd_code rc = APD_OK;
    struct stat st;

    if (stat(pattern, &st) == 0)
        return add_one(pattern, names, err);
    APD_GO(apd_brace_expand(pattern, &expanded, err));
    for (size_t i = 0; i < expanded.count; i++)
        APD_GO(add_one(expanded.name[i], names, err));
done:
    apd_names_fini(&expanded);
    return rc;
}
