#include "tests/support/scratch.h"

#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static char folder[PATH_MAX / 2];

static void must(int good, const char *what)
{
    if (good)
        return;
    perror(what);
    abort();
}

const char *scratch_create(void)
{
    const char *base = getenv("TMPDIR");

    (void)snprintf(folder, sizeof folder, "%s/apd-test-XXXXXX", base != NULL ? base : "/tmp");
    must(mkdtemp(folder) != NULL, folder);
    return folder;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void scratch_remove(void)
{
    must(nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0, folder);
}

const char *scratch_path(const char *name)
{
    static char *paths[64];
    size_t i = 0, prefix = strlen(folder) + 1;

    while (i < 64 && paths[i] != NULL && strcmp(paths[i] + prefix, name) != 0)
        i++;
    must(i < 64, "more than 64 scratch paths");
    if (paths[i] == NULL) {
        paths[i] = malloc(prefix + strlen(name) + 1);
        must(paths[i] != NULL, name);
        (void)sprintf(paths[i], "%s/%s", folder, name);
    }
    return paths[i];
}

void scratch_write(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");

    must(file != NULL, path);
    must(fwrite(data, 1, size, file) == size, path);
    must(fclose(file) == 0, path);
}

void scratch_write_gzip(const char *path, const void *data, size_t size)
{
    gzFile file = gzopen(path, "wb9");

    must(file != NULL, path);
    must(size == 0 || gzwrite(file, data, (unsigned)size) == (int)size, path);
    must(gzclose(file) == Z_OK, path);
}

unsigned char *scratch_read(const char *path, size_t *out_size)
{
    FILE *file = fopen(path, "rb");
    unsigned char *data;
    long size;

    must(file != NULL, path);
    must(fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0, path);
    rewind(file);
    data = malloc((size_t)size + 1);
    must(data != NULL && fread(data, 1, (size_t)size, file) == (size_t)size, path);
    data[size] = 0;
    fclose(file);
    *out_size = (size_t)size;
    return data;
}

int scratch_entries(const char *name)
{
    DIR *dir = opendir(scratch_path(name));
    int count = -2;

    must(dir != NULL, name);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}
