/* Reading and appending commits.jsonl. A line is the compact JSON object of one record with the
 * member "crc" put last; the CRC-32C is that of the line's bytes up to (not including) ,"crc": */
#include "proto/commit_log.h"

#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_CAP  ((size_t)64 << 20)
#define LINE_CAP ((size_t)16 << 10)

/* What stands between the record's own members and the end of the line: ,"crc":"89abcdef"} */
#define CRC_MARK ",\"crc\":\""
#define CRC_TAIL (sizeof CRC_MARK - 1 + 8 + 2)

static enum apd_code log_path(const char *run_dir, char out[PATH_MAX], struct apd_err *err)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", run_dir, APD_COMMIT_LOG_FILE);

    if (n < 0 || n >= PATH_MAX)
        return apd_fail(err, APD_CONFIG, "run directory name of %zu bytes is too long",
                        strlen(run_dir));
    return APD_OK;
}

/* ---------------------------------------------------------------- lists */

void apd_commit_list_fini(struct apd_commit_list *list)
{
    for (size_t i = 0; i < list->skipped_count; i++)
        free(list->skipped[i]);
    free(list->skipped);
    free(list->commit);
    *list = (struct apd_commit_list){0};
}

static enum apd_code add_commit(struct apd_commit_list *list, const struct apd_commit *commit,
                                struct apd_err *err)
{
    struct apd_commit *grown = realloc(list->commit, (list->count + 1) * sizeof *grown);

    if (grown == NULL)
        return apd_fail(err, APD_NOMEM, "%zu commit records", list->count + 1);
    list->commit = grown;
    grown[list->count++] = *commit;
    return APD_OK;
}

static enum apd_code add_skipped(struct apd_commit_list *list, const char *text,
                                 struct apd_err *err)
{
    char **grown = realloc(list->skipped, (list->skipped_count + 1) * sizeof *grown);
    char *copy = strdup(text);

    if (grown != NULL)
        list->skipped = grown;
    if (grown == NULL || copy == NULL) {
        free(copy);
        return apd_fail(err, APD_NOMEM, "%zu reasons of skipped commits", list->skipped_count + 1);
    }
    grown[list->skipped_count++] = copy;
    return APD_OK;
}

/* ---------------------------------------------------------------- one record as text */

static int is_sha256(const char *text)
{
    return strspn(text, "0123456789abcdef") == 64 && text[64] == '\0';
}

/* Relative, and never out of the run directory. */
static int is_inside(const char *path)
{
    if (path[0] == '\0' || path[0] == '/')
        return 0;
    for (const char *part = path; part != NULL; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
            return 0;
    }
    return 1;
}

/* Facts about a record that make no sense; NULL if it is fine. */
static const char *senseless(const struct apd_commit *commit)
{
    if (!is_inside(commit->path))
        return "path is not inside the run directory";
    if (!is_sha256(commit->sha256))
        return "sha256 is not 64 lower-case hex digits";
    if (commit->main_top1 > commit->main_images)
        return "main_top1 is above main_images";
    return NULL;
}

/* The line without newline; the caller frees. */
static enum apd_code line_of(const struct apd_commit *commit, char **out, struct apd_err *err)
{
    json_t *object = json_pack(
        "{s:I, s:I, s:s, s:s, s:I, s:I, s:f, s:I, s:I, s:s}", "step", (json_int_t)commit->step,
        "epoch", (json_int_t)commit->epoch, "path", commit->path, "sha256", commit->sha256, "bytes",
        (json_int_t)commit->bytes, "generation", (json_int_t)commit->generation, "date_s",
        commit->date_s, "main_top1", (json_int_t)commit->main_top1, "main_images",
        (json_int_t)commit->main_images, "reason", commit->reason);
    char *body = object == NULL ? NULL : json_dumps(object, JSON_COMPACT);
    char *line = body == NULL ? NULL : malloc(strlen(body) + CRC_TAIL + 1);
    enum apd_code rc = APD_OK;
    size_t n;

    if (line == NULL) {
        rc = apd_fail(err, APD_BUG, "commit record of step %" PRIu64 " cannot be put into JSON",
                      commit->step);
        goto done;
    }
    n = strlen(body) - 1; /* without the closing brace */
    memcpy(line, body, n);
    (void)snprintf(line + n, CRC_TAIL + 1, "%s%08" PRIx32 "\"}", CRC_MARK, apd_crc32c(0, body, n));
    *out = line;
done:
    json_decref(object);
    free(body);
    return rc;
}

static int get_count(const json_t *object, const char *key, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return 0;
    *out = (uint64_t)json_integer_value(value);
    return 1;
}

static int get_text(const json_t *object, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));

    if (text == NULL || strlen(text) >= size)
        return 0;
    memcpy(out, text, strlen(text) + 1);
    return 1;
}

/* Fills *out; returns NULL, or what is wrong with the object. */
static const char *record_of(const json_t *object, struct apd_commit *out)
{
    const json_t *date = json_object_get(object, "date_s");
    uint64_t epoch;

    if (!get_count(object, "step", &out->step) || !get_count(object, "epoch", &epoch) ||
        !get_count(object, "bytes", &out->bytes) ||
        !get_count(object, "generation", &out->generation) ||
        !get_count(object, "main_top1", &out->main_top1) ||
        !get_count(object, "main_images", &out->main_images) || epoch > UINT32_MAX)
        return "a count is missing or negative";
    if (!get_text(object, "path", out->path, sizeof out->path) ||
        !get_text(object, "sha256", out->sha256, sizeof out->sha256) ||
        !get_text(object, "reason", out->reason, sizeof out->reason))
        return "a text is missing or too long";
    if (!json_is_number(date))
        return "date_s is missing";
    out->epoch = (uint32_t)epoch;
    out->date_s = json_number_value(date);
    return senseless(out);
}

/* Reads one line of n bytes; returns NULL and *out, or what is wrong with it. */
static const char *parse_line(const char *line, size_t n, struct apd_commit *out)
{
    const char *problem, *mark;
    char crc[9];
    json_t *object;

    if (n > LINE_CAP)
        return "too long";
    if (n < CRC_TAIL + 1 || memcmp(line + n - CRC_TAIL, CRC_MARK, sizeof CRC_MARK - 1) != 0 ||
        memcmp(line + n - 2, "\"}", 2) != 0)
        return "torn, it does not end with a crc";
    mark = line + n - CRC_TAIL;
    (void)snprintf(crc, sizeof crc, "%08" PRIx32, apd_crc32c(0, line, (size_t)(mark - line)));
    if (memcmp(crc, mark + sizeof CRC_MARK - 1, 8) != 0)
        return "altered, its crc is wrong";
    object = json_loadb(line, n, JSON_REJECT_DUPLICATES, NULL);
    problem = object == NULL ? "not JSON" : record_of(object, out);
    json_decref(object);
    return problem;
}

/* ---------------------------------------------------------------- the file */

/* Where the log ends, and whether its last line is open (torn by a crash). */
static enum apd_code log_end(int fd, const char *path, off_t *out_size, int *out_torn,
                             struct apd_err *err)
{
    struct stat st;
    char last = '\n';

    if (fstat(fd, &st) != 0)
        return apd_fail_errno(err, "%s", path);
    if (st.st_size > 0 && pread(fd, &last, 1, st.st_size - 1) != 1)
        return apd_fail_errno(err, "reading the end of %s", path);
    *out_size = st.st_size;
    *out_torn = last != '\n';
    return APD_OK;
}

/* Makes a failed append void. The message keeps what failed first. */
static void cut_back(int fd, off_t size, struct apd_err *err)
{
    const char *how = "the record is void, the log was cut back";

    if (ftruncate(fd, size) != 0 || fsync(fd) != 0)
        how = "the record is void, but the log could not be cut back";
    (void)apd_prefix(err, "%s", how);
}

enum apd_code apd_commit_log_append(const char *run_dir, const struct apd_commit *commit,
                                    struct apd_err *err)
{
    const char *problem = senseless(commit);
    char path[PATH_MAX], *line = NULL;
    enum apd_code rc = APD_OK;
    off_t size = 0;
    int fd = -1, torn = 0;

    if (problem != NULL)
        return apd_fail(err, APD_BUG, "commit record of step %" PRIu64 ": %s", commit->step,
                        problem);
    APD_GO(log_path(run_dir, path, err));
    APD_GO(line_of(commit, &line, err));
    fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = apd_fail_errno(err, "opening %s", path);
        goto done;
    }
    APD_GO(log_end(fd, path, &size, &torn, err));

    if (torn)
        rc = apd_write_all(fd, "\n", 1, path, err);
    if (rc == APD_OK)
        rc = apd_write_all(fd, line, strlen(line), path, err);
    if (rc == APD_OK)
        rc = apd_write_all(fd, "\n", 1, path, err);
    if (rc == APD_OK && fsync(fd) != 0)
        rc = apd_fail_errno(err, "fsync of %s", path);
    if (rc == APD_OK && size == 0)
        rc = apd_fsync_folder_of(path, err);
    if (rc != APD_OK)
        cut_back(fd, size, err);
done:
    if (fd >= 0)
        close(fd);
    free(line);
    return rc;
}

/* Reads the whole log into fresh memory; *out NULL if there is none. */
static enum apd_code read_log(const char *path, char **out, size_t *out_size, struct apd_err *err)
{
    struct stat st;

    *out = NULL;
    *out_size = 0;
    if (stat(path, &st) != 0 && errno == ENOENT)
        return APD_OK;
    return apd_read_file(path, LOG_CAP, out, out_size, err);
}

enum apd_code apd_commit_log_load(const char *run_dir, struct apd_commit_list *out,
                                  struct apd_err *err)
{
    struct apd_commit_list list = {0};
    char path[PATH_MAX], *text = NULL;
    size_t size, number = 0;
    enum apd_code rc;

    APD_GO(log_path(run_dir, path, err));
    APD_GO(read_log(path, &text, &size, err));
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end == NULL ? size - at : (size_t)(end - (text + at));
        struct apd_commit commit = {0};
        const char *problem = parse_line(text + at, n, &commit);
        char reason[256];

        number++;
        if (problem == NULL && end == NULL)
            problem = "torn, its newline is missing";
        if (problem == NULL) {
            APD_GO(add_commit(&list, &commit, err));
        } else {
            (void)snprintf(reason, sizeof reason, "%s line %zu: %s", APD_COMMIT_LOG_FILE, number,
                           problem);
            APD_GO(add_skipped(&list, reason, err));
        }
        at += n + 1;
    }
    *out = list;
    list = (struct apd_commit_list){0};
    rc = APD_OK;
done:
    apd_commit_list_fini(&list);
    free(text);
    return rc;
}

/* ---------------------------------------------------------------- which one to start from */

enum apd_code apd_commit_log_check(const char *run_dir, const struct apd_commit *commit,
                                   struct apd_err *err)
{
    char path[PATH_MAX], found[APD_SHA256_HEX];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/%s", run_dir, commit->path);

    if (n < 0 || (size_t)n >= sizeof path)
        return apd_fail(err, APD_DATA, "its path is too long");
    if (stat(path, &st) != 0)
        return apd_fail_errno(err, "%s", commit->path);
    if (!S_ISREG(st.st_mode))
        return apd_fail(err, APD_DATA, "%s is no file", commit->path);
    if ((uint64_t)st.st_size != commit->bytes)
        return apd_fail(err, APD_DATA, "%s has %lld bytes, expected %" PRIu64, commit->path,
                        (long long)st.st_size, commit->bytes);
    APD_TRY(apd_sha256_of_file(path, found, err));
    if (strcmp(found, commit->sha256) != 0)
        return apd_fail(err, APD_DATA, "%s has SHA-256 %s, expected %s", commit->path, found,
                        commit->sha256);
    return APD_OK;
}

/* Index of the newest record not yet tried, or count. */
static size_t newest(const struct apd_commit_list *list, const unsigned char *tried)
{
    size_t best = list->count;

    for (size_t i = 0; i < list->count; i++)
        if (!tried[i] &&
            (best == list->count || list->commit[i].generation >= list->commit[best].generation))
            best = i;
    return best;
}

enum apd_code apd_commit_log_newest_good(const char *run_dir, struct apd_commit_list *out,
                                         struct apd_err *err)
{
    struct apd_commit_list all = {0}, found = {0};
    unsigned char *tried = NULL;
    struct apd_err problem;
    enum apd_code rc;
    size_t i;

    APD_GO(apd_commit_log_load(run_dir, &all, err));
    tried = calloc(all.count + 1, 1);
    if (tried == NULL) {
        rc = apd_fail(err, APD_NOMEM, "%zu commit records", all.count);
        goto done;
    }
    for (i = all.skipped_count; i > 0; i--)
        APD_GO(add_skipped(&found, all.skipped[i - 1], err));
    for (i = newest(&all, tried); i < all.count; i = newest(&all, tried)) {
        tried[i] = 1;
        if (apd_commit_log_check(run_dir, &all.commit[i], &problem) == APD_OK) {
            APD_GO(add_commit(&found, &all.commit[i], err));
            break;
        }
        (void)apd_prefix(&problem, "checkpoint of step %" PRIu64 ", generation %" PRIu64,
                         all.commit[i].step, all.commit[i].generation);
        APD_GO(add_skipped(&found, problem.msg, err));
    }
    *out = found;
    found = (struct apd_commit_list){0};
    rc = APD_OK;
done:
    apd_commit_list_fini(&all);
    apd_commit_list_fini(&found);
    free(tried);
    return rc;
}
