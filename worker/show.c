#include "worker/show.h"

#include "base/fs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum apd_code apd_show_json(const json_t *object, struct apd_err *err)
{
    if (object == NULL)
        return apd_fail(err, APD_NOMEM, "result as JSON");
    if (json_dumpf(object, stdout, JSON_COMPACT) != 0)
        return apd_fail_errno(err, "writing the result");
    putchar('\n');
    return APD_OK;
}

enum apd_code apd_show_bytes(const char *path, const void *data, size_t size, struct apd_err *err)
{
    if (path != NULL)
        return apd_write_file(path, data, size, 0, err);
    if (isatty(STDOUT_FILENO))
        return apd_fail(err, APD_USAGE, "standard output is a terminal: say -o FILE");
    return apd_write_all(STDOUT_FILENO, data, size, "standard output", err);
}

json_t *apd_show_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

void apd_show_text(const char *text, int width, FILE *out)
{
    int n = 0;

    for (; text[n] != '\0'; n++)
        putc((unsigned char)text[n] < ' ' || text[n] == 0x7f ? '?' : text[n], out);
    for (; n < width; n++)
        putc(' ', out);
}

json_t *apd_show_string(const char *text)
{
    json_t *string = json_string(text);
    char *copy = string == NULL ? strdup(text) : NULL;

    for (char *at = copy; at != NULL && *at != '\0'; at++)
        if ((unsigned char)*at >= 0x80)
            *at = '?';
    if (copy != NULL)
        string = json_string(copy);
    free(copy);
    return string;
}

const char *apd_show_get(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text == NULL ? "" : text;
}

long long apd_show_count(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}
