#include "worker/data/tar_fields.h"

#include <stdlib.h>
#include <string.h>

enum { CHECKSUM_AT = 148, CHECKSUM_SIZE = 8 };

static int base_256(const uint8_t *field, size_t size, uint64_t *out)
{
    uint64_t value = field[0] & 0x7f; /* 0x7f: a negative number, too large below */

    for (size_t i = 1; i < size; i++) {
        if (value >> 55 != 0)
            return 0;
        value = value << 8 | field[i];
    }
    *out = value;
    return 1;
}

int apd_tar_number(const uint8_t *field, size_t size, uint64_t *out)
{
    uint64_t value = 0;
    size_t i = 0;

    if (size > 0 && field[0] & 0x80)
        return base_256(field, size, out);
    while (i < size && field[i] == ' ')
        i++;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(field[i] - '0');
    for (; i < size; i++)
        if (field[i] != ' ' && field[i] != '\0')
            return 0;
    *out = value; /* at most 12 digits: no overflow */
    return 1;
}

int apd_tar_checksum_ok(const uint8_t header[APD_TAR_BLOCK])
{
    int64_t plain = 0, with_sign = 0;
    uint64_t stated;

    for (int i = 0; i < APD_TAR_BLOCK; i++) {
        int inside = i >= CHECKSUM_AT && i < CHECKSUM_AT + CHECKSUM_SIZE;
        uint8_t byte = inside ? ' ' : header[i];

        plain += byte;
        with_sign += (int8_t)byte;
    }
    return apd_tar_number(header + CHECKSUM_AT, CHECKSUM_SIZE, &stated) &&
           ((int64_t)stated == plain || (int64_t)stated == with_sign);
}

static int decimal(const char *text, size_t size, uint64_t *out)
{
    uint64_t value = 0;

    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9' || value > (UINT64_MAX >> 1) / 10 - 1)
            return 0;
        value = 10 * value + (uint64_t)(text[i] - '0');
    }
    *out = value;
    return size > 0;
}

void apd_tar_extra_path(struct apd_tar_extra *extra, const char *text, size_t size)
{
    free(extra->path);
    extra->path = size > 0 ? strndup(text, size) : NULL;
    extra->no_memory = size > 0 && extra->path == NULL;
}

static const char *take_record(struct apd_tar_extra *extra, const char *key, size_t key_size,
                               const char *value, size_t size)
{
    static const char sparse[] = "GNU.sparse.";

    if (key_size >= sizeof sparse - 1 && memcmp(key, sparse, sizeof sparse - 1) == 0)
        return "a sparse member, which is not supported";
    if (key_size == 4 && memcmp(key, "path", 4) == 0) {
        if (memchr(value, '\0', size) != NULL)
            return "a path with a NUL byte";
        apd_tar_extra_path(extra, value, size);
    }
    if (key_size == 4 && memcmp(key, "size", 4) == 0) {
        extra->has_size = size > 0;
        if (size > 0 && !decimal(value, size, &extra->size))
            return "a size that is no number";
    }
    return NULL;
}

const char *apd_tar_pax(const char *text, size_t size, struct apd_tar_extra *extra,
                        size_t *out_place)
{
    for (size_t at = 0; at < size;) {
        const char *space = memchr(text + at, ' ', size - at), *equals, *wrong;
        uint64_t length;

        *out_place = at;
        if (space == NULL || !decimal(text + at, (size_t)(space - text) - at, &length))
            return "a record without a length";
        if (length > size - at || text + at + length <= space + 1 || text[at + length - 1] != '\n')
            return "a record of the wrong length";
        at += length;
        equals = memchr(space + 1, '=', (size_t)(text + at - 1 - (space + 1)));
        if (equals == NULL)
            return "a record without =";
        wrong = take_record(extra, space + 1, (size_t)(equals - (space + 1)), equals + 1,
                            (size_t)(text + at - 1 - (equals + 1)));
        if (wrong != NULL)
            return wrong;
    }
    return NULL;
}

void apd_tar_extra_fini(struct apd_tar_extra *extra)
{
    free(extra->path);
    *extra = (struct apd_tar_extra){0};
}
