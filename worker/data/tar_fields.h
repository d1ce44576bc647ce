/* Fields of tar headers: numbers, checksums, and the records of pax extended headers. Pure. */
#ifndef APD_WORKER_DATA_TAR_FIELDS_H
#define APD_WORKER_DATA_TAR_FIELDS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { APD_TAR_BLOCK = 512 };

/* Octal digits or GNU's base 256. Returns 0 if it is neither or does not fit. */
int apd_tar_number(const uint8_t *field, size_t size, uint64_t *out);

/* Whether the header's checksum is right; bytes count as unsigned, or signed as in old writers. */
int apd_tar_checksum_ok(const uint8_t header[APD_TAR_BLOCK]);

/* What extended headers say about members. */
struct apd_tar_extra {
    char *path; /* NULL: nothing */
    int has_size;
    uint64_t size;
    int no_memory; /* for the path */
};

/* Takes the records "LENGTH KEY=VALUE\n" of `text` into *extra; an empty value takes a former one
 * back. Returns NULL or what is wrong, with its place in the text. */
const char *apd_tar_pax(const char *text, size_t size, struct apd_tar_extra *extra,
                        size_t *out_place);
/* Replaces the path by the first `size` bytes of `text`; of size 0: takes it back. */
void apd_tar_extra_path(struct apd_tar_extra *extra, const char *text, size_t size);
void apd_tar_extra_fini(struct apd_tar_extra *extra);

#endif
