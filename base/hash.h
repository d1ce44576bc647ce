/* Hashes: SHA-256 (OpenSSL) for files, as 64 lower-case hex digits; CRC-32C for single records. */
#ifndef APD_BASE_HASH_H
#define APD_BASE_HASH_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define APD_SHA256_HEX 65 /* with the NUL */

struct apd_sha256; /* running hash */

APD_MUST_USE enum apd_code apd_sha256_create(struct apd_sha256 **out, struct apd_err *err);
APD_MUST_USE enum apd_code apd_sha256_update(struct apd_sha256 *hash, const void *data, size_t size,
                                             struct apd_err *err);
/* Ends the hash; the object can only be destroyed after it. */
APD_MUST_USE enum apd_code apd_sha256_hex(struct apd_sha256 *hash, char out[APD_SHA256_HEX],
                                          struct apd_err *err);
void apd_sha256_destroy(struct apd_sha256 **hash);

APD_MUST_USE enum apd_code apd_sha256_of(const void *data, size_t size, char out[APD_SHA256_HEX],
                                         struct apd_err *err);
/* From the descriptor's position to the end of the file; blocking. `path` is for the message only.
 */
APD_MUST_USE enum apd_code apd_sha256_of_fd(int fd, const char *path, char out[APD_SHA256_HEX],
                                            struct apd_err *err);
APD_MUST_USE enum apd_code apd_sha256_of_file(const char *path, char out[APD_SHA256_HEX],
                                              struct apd_err *err);

/* CRC-32C (Castagnoli, reflected, as in iSCSI); start with 0, pass the result on to continue. */
uint32_t apd_crc32c(uint32_t crc, const void *data, size_t size);

#endif
