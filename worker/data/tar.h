/* A tar file read front to back: ustar, GNU (long names, base-256 sizes) and pax (path and size,
 * of one member or global). What is no regular file is handed out with what it is, for the caller
 * to pass over. The bytes of a member can be had on the way, or later with apd_regular_read at its
 * offset.
 *
 * Nothing in the file is believed: checksums, digits, lengths against the end of the file, and
 * metadata of at most 1 MiB. The archive ends with a block of zeros or with the file; after zeros
 * only zeros may follow. Sparse members and parts of a multi-volume archive are refused.
 * Memory: 256 KiB and the metadata. Blocking; one thread. */
#ifndef APD_WORKER_DATA_TAR_H
#define APD_WORKER_DATA_TAR_H

#include "base/err.h"
#include "base/hash.h"

#include <stddef.h>
#include <stdint.h>

struct apd_tar;

struct apd_tar_member {
    const char *name; /* good until the next call of apd_tar_next */
    uint64_t offset;  /* of its bytes in the file */
    uint64_t size;    /* offset + size lies in the file */
    const char *skip; /* NULL: a regular file; otherwise what it is: "directory", ... */
};

/* hash: NULL, or it takes every byte of the file by the time the end is reached; must outlive the
 * reader. */
APD_MUST_USE enum apd_code apd_tar_open(const char *path, struct apd_sha256 *hash,
                                        struct apd_tar **out, struct apd_err *err);

/* The next member, or *out = NULL after the last. APD_DATA names file, offset, expected, found. */
APD_MUST_USE enum apd_code apd_tar_next(struct apd_tar *tar, const struct apd_tar_member **out,
                                        struct apd_err *err);

/* The next piece of the current member's bytes, good until the next call; *out_size = 0 after the
 * last. Need not be called: apd_tar_next passes over what is left. */
APD_MUST_USE enum apd_code apd_tar_piece(struct apd_tar *tar, const uint8_t **out, size_t *out_size,
                                         struct apd_err *err);

/* Length of the file. */
uint64_t apd_tar_bytes(const struct apd_tar *tar);

/* NULL ok; nulls. */
void apd_tar_close(struct apd_tar **tar);

#endif
