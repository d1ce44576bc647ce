/* See view.h. */
#include "cli/view.h"
#include "base/clock.h"
#include "cli/fields.h"

#include <string.h>

#define LABEL "%-11s "

static double percent(const json_t *object, const char *part, const char *whole)
{
    double all = apd_field(object, whole);

    return all > 0 ? 100 * apd_field(object, part) / all : 0;
}

/* The epoch in work, counted from 1; the last one when the run is through. */
static uint64_t epoch_shown(const json_t *status)
{
    uint64_t epoch = apd_field_u64(status, "epoch") + 1,
             total = apd_field_u64(status, "epochs_total");

    return total > 0 && epoch > total ? total : epoch;
}

size_t apd_view_evaluations(const json_t *list, size_t first, FILE *out)
{
    uint64_t epoch = apd_field_u64(json_array_get(list, first), "epoch");
    size_t i = first;

    for (; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);

        if (apd_field_u64(one, "epoch") != epoch)
            break;
        fprintf(out, "%s%s %.2f %%", i > first ? ", " : "", apd_field_text(one, "name"),
                percent(one, "top1", "images"));
    }
    return i;
}

static void view_progress(const json_t *status, FILE *out)
{
    char step[APD_NUMBER_MAX], total[APD_NUMBER_MAX], speed[APD_NUMBER_MAX], left[APD_NUMBER_MAX];
    const json_t *last = json_object_get(status, "last");

    fprintf(out, LABEL "epoch %llu of %llu, step %s of %s (%.1f %%)", "progress",
            (unsigned long long)epoch_shown(status),
            (unsigned long long)apd_field_u64(status, "epochs_total"),
            apd_grouped(apd_field_u64(status, "step"), step),
            apd_grouped(apd_field_u64(status, "steps_total"), total),
            percent(status, "step", "steps_total"));
    if (apd_field(status, "images_per_s") > 0)
        fprintf(out, ", %s images/s",
                apd_grouped((uint64_t)apd_field(status, "images_per_s"), speed));
    if (apd_field(status, "eta_s") > 0)
        fprintf(out, ", %s left", apd_duration(apd_field(status, "eta_s"), left));
    fputc('\n', out);
    if (last != NULL)
        fprintf(out, LABEL "%.1f %% of the time of steps waiting for it\n", "data",
                100 * apd_field(status, "data_wait_share"));
    if (last != NULL)
        fprintf(out, LABEL "clean %.4f, noise %.4f, adv %.4f; learning rate %.4g\n", "losses",
                apd_field(status, "loss_clean_mean"), apd_field(status, "loss_noise_mean"),
                apd_field(status, "loss_adv_mean"), apd_field(last, "lr"));
}

static void view_receipts(const json_t *list, FILE *out)
{
    char have[APD_NUMBER_MAX], all[APD_NUMBER_MAX];

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);

        fprintf(out, LABEL "epoch %llu: %s of %s%s\n", i == 0 ? "receipts" : "",
                (unsigned long long)apd_field_u64(one, "epoch") + 1,
                apd_grouped(apd_field_u64(one, "samples"), have),
                apd_grouped(apd_field_u64(one, "samples_expected"), all),
                apd_field_bool(one, "match")      ? " receipts match"
                : apd_field_bool(one, "complete") ? " receipts DO NOT MATCH"
                                                  : "");
    }
}

static void view_checkpoint(const json_t *checkpoint, FILE *out)
{
    char ago[APD_NUMBER_MAX];

    if (checkpoint == NULL)
        return;
    fprintf(out, LABEL "step %llu, %s ago: %s\n" LABEL "sha256 %s\n", "checkpoint",
            (unsigned long long)apd_field_u64(checkpoint, "step"),
            apd_duration(apd_date_s() - apd_field(checkpoint, "date_s"), ago),
            apd_field_text(checkpoint, "path"), "", apd_field_text(checkpoint, "sha256"));
}

static void view_workers(const json_t *list, FILE *out)
{
    if (json_array_size(list) == 0)
        return;
    fprintf(out, "\n%4s  %-16s %8s  %-13s %9s  %-9s %9s %9s %8s  %s\n", "rank", "host", "pid",
            "phase", "step", "lanes", "images/s", "data wait", "silent", "backend");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *worker = json_array_get(list, i);
        unsigned long long first = apd_field_u64(worker, "lane_first");
        unsigned long long count = apd_field_u64(worker, "lane_count");
        char lanes[48] = "-";

        if (count > 0)
            (void)snprintf(lanes, sizeof lanes, "%llu-%llu", first, first + count - 1);
        fprintf(out, "%4llu  %-16s %8llu  %-13s %9llu  %-9s %9.0f %7.1f %% %6.1f s  %s\n",
                (unsigned long long)apd_field_u64(worker, "rank"), apd_field_text(worker, "host"),
                (unsigned long long)apd_field_u64(worker, "pid"),
                apd_field_bool(worker, "connected") ? apd_field_text(worker, "phase")
                                                    : "not connected",
                (unsigned long long)apd_field_u64(worker, "step"), lanes,
                apd_field(worker, "images_per_s"), 100 * apd_field(worker, "data_wait_share"),
                apd_field(worker, "silent_ms") / 1000, apd_field_text(worker, "backend"));
        if (*apd_field_text(worker, "detail") != '\0')
            fprintf(out, "      waits for %s\n", apd_field_text(worker, "detail"));
    }
}

void apd_view_status(const json_t *status, FILE *out)
{
    const json_t *evaluations = json_object_get(status, "evaluation");

    fprintf(out, LABEL "%s: %s, start %llu, up %.0f s\n", "run", apd_field_text(status, "run_dir"),
            apd_field_text(status, "state"),
            (unsigned long long)apd_field_u64(status, "generation"), apd_field(status, "uptime_s"));
    fprintf(out, LABEL "%s, %s; batch %llu over %llu lanes\n", "model",
            apd_field_text(status, "model"), apd_field_text(status, "mode"),
            (unsigned long long)apd_field_u64(status, "batch"),
            (unsigned long long)apd_field_u64(status, "lanes"));
    view_progress(status, out);
    view_receipts(json_object_get(status, "receipt"), out);
    for (size_t i = 0; i < json_array_size(evaluations);) {
        fprintf(out, LABEL "epoch %llu: ", i == 0 ? "accuracy" : "",
                (unsigned long long)apd_field_u64(json_array_get(evaluations, i), "epoch"));
        i = apd_view_evaluations(evaluations, i, out);
        fputc('\n', out);
    }
    view_checkpoint(json_object_get(status, "checkpoint"), out);
    if (apd_field_u64(status, "bad_samples") > 0)
        fprintf(out, LABEL "%llu left out, see bad_samples.jsonl\n", "bad samples",
                (unsigned long long)apd_field_u64(status, "bad_samples"));
    if (*apd_field_text(status, "notice") != '\0')
        fprintf(out, LABEL "%s\n", "note", apd_field_text(status, "notice"));
    if (*apd_field_text(status, "first_cause") != '\0')
        fprintf(out, LABEL "%s\n", "first cause", apd_field_text(status, "first_cause"));
    view_workers(json_object_get(status, "worker"), out);
}

static void view_lane(const json_t *lane, unsigned long long rank, FILE *out)
{
    const json_t *shards = json_object_get(lane, "shard");
    char samples[APD_NUMBER_MAX];

    fprintf(out, "%4llu  %5llu  %6llu  %11s  ", rank,
            (unsigned long long)apd_field_u64(lane, "lane"),
            (unsigned long long)apd_field_u64(lane, "epoch") + 1,
            apd_grouped(apd_field_u64(lane, "samples"), samples));
    for (size_t i = 0; i < json_array_size(shards); i++)
        fprintf(out, "%s%lld", i > 0 ? " " : "",
                (long long)json_integer_value(json_array_get(shards, i)));
    fprintf(out, "%s\n", apd_field_bool(lane, "truncated") ? " ..." : "");
}

void apd_view_shards(const json_t *shards, FILE *out)
{
    const json_t *workers = json_object_get(shards, "worker");

    fprintf(out, "%4s  %5s  %6s  %11s  %s\n", "rank", "lane", "epoch", "samples", "shards");
    for (size_t i = 0; i < json_array_size(workers); i++) {
        const json_t *worker = json_array_get(workers, i), *lanes = json_object_get(worker, "lane");

        for (size_t k = 0; k < json_array_size(lanes); k++)
            view_lane(json_array_get(lanes, k), apd_field_u64(worker, "rank"), out);
    }
}

void apd_view_event(const json_t *event, FILE *out)
{
    char date[32];

    apd_date_format(apd_field(event, "date_s"), date, sizeof date);
    fprintf(out, "%s  %-5s %-16s %s\n", date, apd_field_text(event, "level"),
            apd_field_text(event, "name"), apd_field_text(event, "text"));
}

/* "[=====>    ]" of `columns` columns. */
static void draw_bar(double share, unsigned columns, char *out)
{
    unsigned inner = columns - 2, full = share >= 1 ? inner : (unsigned)(share * inner);

    *out++ = '[';
    for (unsigned i = 0; i < inner; i++)
        *out++ = i < full ? '=' : i == full ? '>' : ' ';
    *out++ = ']';
    *out = '\0';
}

const char *apd_view_doing(const json_t *status)
{
    const char *state = apd_field_text(status, "state");
    const json_t *first = json_array_get(json_object_get(status, "worker"), 0);

    if (strcmp(state, "saving") == 0 && strcmp(apd_field_text(first, "phase"), "evaluating") == 0)
        return "evaluating";
    return state;
}

/* "draining: epoch 1/3 [==>  ]  25% step 279/1,125" */
static void write_place(const json_t *status, unsigned columns, FILE *out)
{
    char step[APD_NUMBER_MAX], total[APD_NUMBER_MAX], bar[64] = "";
    const char *state = apd_view_doing(status);
    unsigned bar_columns = columns >= 110 ? 24 : columns >= 100 ? 14 : 0;
    double done = percent(status, "step", "steps_total");

    if (bar_columns > 0) {
        draw_bar(done / 100, bar_columns, bar);
        strcat(bar, " ");
    }
    if (strcmp(state, "training") != 0)
        fprintf(out, "%s: ", state);
    fprintf(out, "epoch %llu/%llu %s%3.0f%% step %s/%s", (unsigned long long)epoch_shown(status),
            (unsigned long long)apd_field_u64(status, "epochs_total"), bar, done,
            apd_grouped(apd_field_u64(status, "step"), step),
            apd_grouped(apd_field_u64(status, "steps_total"), total));
}

static void write_numbers(const json_t *status, FILE *out)
{
    double speed = apd_field(status, "images_per_s"), eta_s = apd_field(status, "eta_s");
    char number[APD_NUMBER_MAX];

    if (speed > 0)
        fprintf(out, "  %s img/s", apd_grouped((uint64_t)speed, number));
    fprintf(out, "  loss %.3f %.3f %.3f  lr %.4g", apd_field(status, "loss_clean_mean"),
            apd_field(status, "loss_noise_mean"), apd_field(status, "loss_adv_mean"),
            apd_field(json_object_get(status, "last"), "lr"));
    if (eta_s > 0)
        fprintf(out, "  eta %s", apd_duration(eta_s, number));
}

void apd_view_progress(const json_t *status, unsigned columns, char *out, size_t size)
{
    FILE *line;

    out[0] = '\0';
    line = fmemopen(out, size, "w");
    if (line == NULL)
        return; /* a line of progress is not worth an error */
    if (json_object_get(status, "last") == NULL) {
        fputs(apd_field_text(status, "state"), line);
    } else {
        write_place(status, columns, line);
        write_numbers(status, line);
    }
    fclose(line);
    out[columns > 0 && columns <= size ? columns - 1 : size - 1] = '\0';
}
