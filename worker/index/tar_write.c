#include "worker/index/tar_write.h"

#include "worker/data/tar_fields.h"

#include <inttypes.h>
#include <string.h>

enum { NAME_BYTES_MAX = 99 };

static const uint8_t zeros[2 * APD_TAR_BLOCK];

static void fill_header(uint8_t header[APD_TAR_BLOCK], const char *name, uint64_t size)
{
    char *text = (char *)header;
    unsigned sum = 0;

    memset(header, 0, APD_TAR_BLOCK);
    memcpy(text, name, strlen(name));
    memcpy(text + 100,
           "0000644\0"
           "0000000\0"
           "0000000",
           24); /* mode, owner, group */
    (void)snprintf(text + 124, 12, "%011" PRIo64, size);
    memcpy(text + 136, "00000000000", 12); /* time */
    memset(text + 148, ' ', 8);
    text[156] = '0';
    memcpy(text + 257,
           "ustar\0"
           "00",
           8);
    for (int i = 0; i < APD_TAR_BLOCK; i++)
        sum += header[i];
    (void)snprintf(text + 148, 7, "%06o", sum); /* digits, NUL, and the space that is there */
}

enum apd_code apd_tar_put(struct apd_out_file *out, const char *name, const void *data, size_t size,
                          struct apd_err *err)
{
    uint8_t header[APD_TAR_BLOCK];
    size_t n = strlen(name);

    if (n == 0 || n > NAME_BYTES_MAX || (uint64_t)size >> 33 != 0)
        return apd_fail(err, APD_BUG, "tar member %s of %zu bytes", name, size);
    fill_header(header, name, size);
    APD_TRY(apd_out_write(out, header, sizeof header, err));
    APD_TRY(apd_out_write(out, data, size, err));
    return apd_out_write(out, zeros, (APD_TAR_BLOCK - size % APD_TAR_BLOCK) % APD_TAR_BLOCK, err);
}

enum apd_code apd_tar_put_end(struct apd_out_file *out, struct apd_err *err)
{
    return apd_out_write(out, zeros, sizeof zeros, err);
}
