/* See journal.h. */
#include "daemon/journal.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FLUSH_BYTES (64 * 1024)
#define MOST_BYTES  (1024 * 1024)

/* 1 if the file is empty or ends with a newline. */
static int ends_with_line(int fd)
{
    off_t end = lseek(fd, 0, SEEK_END);
    char last = '\n';

    return end <= 0 || (pread(fd, &last, 1, end - 1) == 1 && last == '\n');
}

enum apd_code apd_journal_open(struct apd_journal *journal, const char *path, struct apd_err *err)
{
    *journal = (struct apd_journal){0};
    journal->path = strdup(path);
    journal->text = malloc(MOST_BYTES);
    if (journal->path == NULL || journal->text == NULL) {
        apd_journal_close(journal);
        return apd_fail(err, APD_NOMEM, "the buffer of %s", path);
    }
    journal->size = MOST_BYTES;
    journal->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (journal->fd < 0) {
        journal->fd = 0;
        (void)apd_fail_errno(err, "opening %s", path);
        apd_journal_close(journal);
        return err->code;
    }
    if (!ends_with_line(journal->fd))
        journal->text[journal->used++] = '\n';
    return APD_OK;
}

void apd_journal_add(struct apd_journal *journal, const char *line)
{
    size_t n = strlen(line);

    if (journal->used + n + 1 > FLUSH_BYTES)
        apd_journal_flush(journal);
    if (journal->used + n + 1 > journal->size) {
        journal->dropped++;
        return;
    }
    memcpy(journal->text + journal->used, line, n);
    journal->used += n;
    journal->text[journal->used++] = '\n';
}

void apd_journal_flush(struct apd_journal *journal)
{
    size_t done = 0;

    while (journal->fd > 0 && done < journal->used) {
        ssize_t put = write(journal->fd, journal->text + done, journal->used - done);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            break;
        done += (size_t)put;
    }
    if (done < journal->used && !journal->failed)
        apd_log(APD_LOG_ERROR, "cannot write", "path=\"%s\" error=\"%s\"", journal->path,
                strerror(errno));
    if (done == journal->used && journal->failed)
        apd_log(APD_LOG_WARN, "can write again", "path=\"%s\" lines_lost=%" PRIu64, journal->path,
                journal->dropped);
    journal->failed = done < journal->used;
    memmove(journal->text, journal->text + done, journal->used - done);
    journal->used -= done;
}

void apd_journal_close(struct apd_journal *journal)
{
    if (journal->fd > 0) {
        apd_journal_flush(journal);
        if (close(journal->fd) != 0)
            apd_log(APD_LOG_ERROR, "cannot close", "path=\"%s\" error=\"%s\"", journal->path,
                    strerror(errno));
    }
    free(journal->path);
    free(journal->text);
    *journal = (struct apd_journal){0};
}
