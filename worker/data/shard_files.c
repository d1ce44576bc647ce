#include "worker/data/shard_files.h"

#include "worker/data/regular.h"

#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct entry {
    uint32_t shard;
    int fd;         /* -1: free */
    unsigned users; /* that read it now */
    int stale;      /* to be closed by the last user */
    uint64_t used;  /* when, by `clock` */
};

struct apd_shard_files {
    pthread_mutex_t lock;
    pthread_cond_t given; /* some entry has no users any more */
    uint64_t clock;
    unsigned count;
    struct entry entry[];
};

enum apd_code apd_shard_files_create(unsigned most, struct apd_shard_files **out,
                                     struct apd_err *err)
{
    struct apd_shard_files *files = malloc(sizeof *files + most * sizeof files->entry[0]);

    if (files == NULL)
        return apd_fail(err, APD_NOMEM, "a list of %u open shards", most);
    pthread_mutex_init(&files->lock, NULL);
    pthread_cond_init(&files->given, NULL);
    files->clock = 0;
    files->count = most;
    for (unsigned i = 0; i < most; i++)
        files->entry[i] = (struct entry){.fd = -1};
    *out = files;
    return APD_OK;
}

void apd_shard_files_destroy(struct apd_shard_files **files)
{
    struct apd_shard_files *dead = *files;

    if (dead == NULL)
        return;
    for (unsigned i = 0; i < dead->count; i++)
        if (dead->entry[i].fd >= 0)
            close(dead->entry[i].fd);
    pthread_cond_destroy(&dead->given);
    pthread_mutex_destroy(&dead->lock);
    free(dead);
    *files = NULL;
}

static struct entry *find(struct apd_shard_files *files, uint32_t shard)
{
    for (unsigned i = 0; i < files->count; i++)
        if (files->entry[i].fd >= 0 && files->entry[i].shard == shard && !files->entry[i].stale)
            return &files->entry[i];
    return NULL;
}

/* An entry to put a file into: a free one, or the one not used for longest. Waits while all are
 * being read. */
static struct entry *make_room(struct apd_shard_files *files)
{
    for (;;) {
        struct entry *oldest = NULL;

        for (unsigned i = 0; i < files->count; i++) {
            struct entry *entry = &files->entry[i];

            if (entry->fd < 0)
                return entry;
            if (entry->users == 0 && (oldest == NULL || entry->used < oldest->used))
                oldest = entry;
        }
        if (oldest != NULL) {
            close(oldest->fd);
            oldest->fd = -1;
            return oldest;
        }
        pthread_cond_wait(&files->given, &files->lock);
    }
}

enum apd_code apd_shard_files_take(struct apd_shard_files *files, uint32_t shard, const char *path,
                                   int *out_fd, struct apd_err *err)
{
    struct entry *entry;
    enum apd_code rc = APD_OK;
    int fd;

    pthread_mutex_lock(&files->lock);
    entry = find(files, shard);
    if (entry == NULL) {
        entry = make_room(files);
        rc = apd_regular_open(path, &fd, NULL, err);
        if (rc == APD_OK) {
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
            *entry = (struct entry){.shard = shard, .fd = fd};
        }
    }
    if (rc == APD_OK) {
        entry->users++;
        entry->used = ++files->clock;
        *out_fd = entry->fd;
    }
    pthread_mutex_unlock(&files->lock);
    return rc;
}

void apd_shard_files_give(struct apd_shard_files *files, int fd, int stale)
{
    struct entry *entry = files->entry;

    pthread_mutex_lock(&files->lock);
    while (entry->fd != fd) { /* by file: beside a stale one the shard may have another */
        entry++;
        assert(entry < files->entry + files->count);
    }
    entry->stale |= stale;
    if (--entry->users == 0) {
        if (entry->stale) {
            close(fd);
            entry->fd = -1;
        }
        pthread_cond_signal(&files->given);
    }
    pthread_mutex_unlock(&files->lock);
}
