/* Places in a manifest file; docs/formats.md explains them. All numbers are little-endian.
 *
 *   header | class table: u64 name | shard table | records | names */
#ifndef APD_WORKER_DATA_MANIFEST_FORMAT_H
#define APD_WORKER_DATA_MANIFEST_FORMAT_H

#include <stdint.h>

#define APD_MANIFEST_MAGIC "APDINDEX" /* without the NUL */

enum {
    APD_MANIFEST_VERSION = 1,

    APD_MANIFEST_HEADER = 160,
    APD_MH_MAGIC = 0,
    APD_MH_VERSION = 8,
    APD_MH_KIND = 12,
    APD_MH_SAMPLES = 16,
    APD_MH_CLASSES = 24,
    APD_MH_SHARDS = 28,
    APD_MH_NAMES_BYTES = 32,
    APD_MH_LEFT_OUT = 40,
    APD_MH_ROOT = 48,
    APD_MH_DIGEST = 56,       /* 64 hex digits */
    APD_MH_SECTION_CRC = 120, /* 4: classes, shards, records, names */
    APD_MH_CRC = 156,         /* of the header before it */

    APD_MANIFEST_CLASS = 8,

    APD_MANIFEST_SHARD = 104,
    APD_MS_FIRST = 0,
    APD_MS_SAMPLES = 8,
    APD_MS_LEFT_OUT = 12,
    APD_MS_BYTES = 16,
    APD_MS_STAMP = 24,
    APD_MS_PATH = 32,
    APD_MS_SHA256 = 40, /* 64 hex digits */

    APD_MANIFEST_RECORD = 24,
    APD_MR_POSITION = 0, /* tar: offset in the shard; folder: the path's place in the names */
    APD_MR_SIZE = 8,
    APD_MR_LABEL = 12,
    APD_MR_CRC = 16,
    APD_MR_SHARD = 20,
};

enum apd_manifest_section {
    APD_SECTION_CLASSES,
    APD_SECTION_SHARDS,
    APD_SECTION_RECORDS,
    APD_SECTION_NAMES,
    APD_SECTIONS,
};

#endif
