/* A file read front to back, unpacked on the way if it is gzip (told by its first two bytes).
 * Memory: one buffer of 64 KiB, whatever the file claims. Blocking; one thread. */
#ifndef APD_WORKER_DATA_UNZIP_H
#define APD_WORKER_DATA_UNZIP_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct apd_unzip;

APD_MUST_USE enum apd_code apd_unzip_open(const char *path, struct apd_unzip **out,
                                          struct apd_err *err);

/* Up to `size` bytes, fewer only at the end of the content. APD_DATA: the packed stream is damaged
 * or truncated or its CRC is wrong; the message names the file and the offset in it. */
APD_MUST_USE enum apd_code apd_unzip_read(struct apd_unzip *unzip, void *dst, size_t size,
                                          size_t *out_got, struct apd_err *err);

/* Bytes handed out so far. */
uint64_t apd_unzip_offset(const struct apd_unzip *unzip);

/* The most bytes the content can have, judged by the size of the file: that size if it is not
 * packed, 1032 times as much if it is (deflate cannot do better). */
uint64_t apd_unzip_bound(const struct apd_unzip *unzip);

/* NULL ok; nulls. */
void apd_unzip_close(struct apd_unzip **unzip);

#endif
