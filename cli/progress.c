/* See progress.h. */
#include "cli/progress.h"
#include "base/clock.h"
#include "cli/fields.h"
#include "cli/view.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COLUMNS_UNKNOWN 80

void apd_progress_init(struct apd_progress *progress, FILE *out, uint64_t every_ms)
{
    *progress = (struct apd_progress){.out = out, .every_ms = every_ms};
    progress->terminal = isatty(fileno(out));
}

static unsigned columns_of(const struct apd_progress *progress)
{
    struct winsize size;

    if (!progress->terminal)
        return 0;
    if (ioctl(fileno(progress->out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return COLUMNS_UNKNOWN;
    return size.ws_col;
}

void apd_progress_break(struct apd_progress *progress)
{
    if (progress->drawn)
        fputs("\r\033[K", progress->out);
    progress->drawn = 0;
    fflush(progress->out);
}

static void show_evaluations(struct apd_progress *progress, const json_t *status)
{
    const json_t *list = json_object_get(status, "evaluation");

    while (progress->evaluations < json_array_size(list)) {
        apd_progress_break(progress);
        fprintf(progress->out, "after epoch %llu: ",
                (unsigned long long)apd_field_u64(json_array_get(list, progress->evaluations),
                                                  "epoch"));
        progress->evaluations = apd_view_evaluations(list, progress->evaluations, progress->out);
        fputc('\n', progress->out);
    }
}

static void show_notice(struct apd_progress *progress, const json_t *status)
{
    const char *notice = apd_field_text(status, "notice");

    if (progress->notice || *notice == '\0')
        return;
    apd_progress_break(progress);
    fprintf(progress->out, "%s\n", notice);
    progress->notice = 1;
}

void apd_progress_show(struct apd_progress *progress, const json_t *status)
{
    const char *state = apd_view_doing(status);
    uint64_t now = apd_now_ms(), generation = apd_field_u64(status, "generation");
    char line[512];

    if (generation != progress->generation) {
        progress->evaluations = 0;
        progress->notice = 0;
    }
    progress->generation = generation;
    show_notice(progress, status);
    show_evaluations(progress, status);
    if (!progress->terminal && now < progress->next_ms && strcmp(state, progress->state) == 0)
        return;
    progress->next_ms = now + progress->every_ms;
    (void)snprintf(progress->state, sizeof progress->state, "%s", state);
    apd_view_progress(status, columns_of(progress), line, sizeof line);
    if (progress->terminal)
        fprintf(progress->out, "\r%s\033[K", line);
    else
        fprintf(progress->out, "%s\n", line);
    progress->drawn = progress->terminal;
    fflush(progress->out);
}
