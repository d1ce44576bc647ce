/* A folder of a test's own, and bytes in and out of files in it. */
#ifndef APD_TESTS_SUPPORT_SCRATCH_H
#define APD_TESTS_SUPPORT_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

/* Makes the folder (below TMPDIR or /tmp) and names it; aborts the test program if it cannot. */
const char *scratch_create(void);
/* Removes it with all it holds. */
void scratch_remove(void);

/* "<folder>/<name>", at most 64 different ones; good to the end of the program. */
const char *scratch_path(const char *name);

void scratch_write(const char *path, const void *data, size_t size);
/* Writes a gzip file of the data. */
void scratch_write_gzip(const char *path, const void *data, size_t size);
/* The whole file; the caller frees. */
unsigned char *scratch_read(const char *path, size_t *out_size);
/* Number of entries in a folder of the scratch folder ("." for itself), without . and .. */
int scratch_entries(const char *name);

#endif
