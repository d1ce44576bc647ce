#include "worker/train_private.h"

#include "proto/run_dir.h"

#include <string.h>

enum { SHARDS_CHECKED = 4096 };

/* The coordinator hands out the epoch's shards; if they are not those of our plan something is
 * badly wrong with one of the two programs. Lists that were cut to fit a frame are compared as far
 * as they go. */
enum apd_code run_check_shards(struct run *run, uint32_t epoch, struct apd_err *err)
{
    uint32_t told[SHARDS_CHECKED], mine[SHARDS_CHECKED];

    for (uint32_t lane = run->lane_first; lane < run->lane_first + run->lane_count; lane++) {
        int truncated,
            n = apd_link_shards(run->link, epoch, lane, SHARDS_CHECKED, told, &truncated);
        uint32_t have = apd_plan_lane_shards(run->plan, epoch, lane, SHARDS_CHECKED, mine, NULL);
        uint32_t common = n < SHARDS_CHECKED ? (uint32_t)n : SHARDS_CHECKED;

        if (n < 0)
            continue; /* not here yet; the plan does not wait for it */
        if ((!truncated && (uint32_t)n != have) || memcmp(told, mine, common * sizeof *mine) != 0)
            return apd_fail(
                err, APD_PROTO,
                "shards of lane %u in epoch %u: expected %u as planned, found %d others", lane,
                epoch, have, n);
    }
    return APD_OK;
}

void run_report_step(struct run *run, const struct apd_step_result *result, double lr,
                     double step_s, double wait_ms)
{
    Advprop__V1__StepReport report = ADVPROP__V1__STEP_REPORT__INIT;
    double now_per_s = (double)run_batch(run) / step_s, now_share = wait_ms / (1000 * step_s);

    run->images_per_s =
        run->images_per_s > 0 ? 0.9 * run->images_per_s + 0.1 * now_per_s : now_per_s;
    run->data_wait_share += 0.1 * (now_share - run->data_wait_share);
    apd_link_progress(run->link, run->progress.step,
                      run->images_per_s * run->lane_count / run->plan_desc.lanes,
                      run->data_wait_share);
    if (!run->is_first)
        return;
    report.step = run->progress.step;
    report.position = run->progress.step * run_batch(run);
    report.epoch = (uint32_t)((report.position - 1) / run->plan_desc.samples);
    report.loss_clean = apd_mean_loss(&result->loss[APD_CLEAN]);
    report.loss_noise = apd_mean_loss(&result->loss[APD_NOISE]);
    report.loss_adv = apd_mean_loss(&result->loss[APD_ADV]);
    report.lr = lr;
    report.top1_clean = (uint64_t)result->loss[APD_CLEAN].top1;
    report.images_clean = (uint64_t)result->loss[APD_CLEAN].images;
    report.top1_adv = (uint64_t)result->loss[APD_ADV].top1;
    report.images_adv = (uint64_t)result->loss[APD_ADV].images;
    report.step_ms = step_s * 1000;
    report.data_wait_ms = wait_ms;
    apd_link_report_step(run->link, &report);
}

void run_report_bad(struct run *run, const struct apd_step_data *data)
{
    for (uint32_t i = 0; i < data->bad_count; i++) {
        const struct apd_bad_sample *found = &data->bad[i];
        Advprop__V1__BadSample bad = ADVPROP__V1__BAD_SAMPLE__INIT;

        bad.sample = data->sample[found->row];
        bad.epoch = data->epoch[found->row];
        bad.step = run->progress.step;
        bad.lane = data->lane_first + found->row / data->lane_batch;
        bad.reason = (char *)(uintptr_t)found->reason;
        apd_link_report_bad_sample(run->link, &bad);
    }
}

static enum apd_code check_bad(const struct run *run, const struct apd_step_receipt *open,
                               struct apd_err *err)
{
    double share = run->config->data.max_bad;

    if ((double)open->bad <= share * (double)run->plan_desc.samples)
        return APD_OK;
    return apd_fail(err, APD_DATA,
                    "epoch %u: %llu of %llu samples could not be used, more than data.max_bad %g "
                    "allows; " APD_RUN_BAD " names them",
                    open->epoch, (unsigned long long)open->bad,
                    (unsigned long long)run->plan_desc.samples, share);
}

/* Adds the step's receipts; closes the epoch when its last sample is in. *out_closed: whether it
 * was. */
enum apd_code run_keep_receipts(struct run *run, const struct apd_step_result *result,
                                int *out_closed, struct apd_err *err)
{
    struct apd_step_receipt *open = &run->progress.receipt;
    Advprop__V1__Receipt receipt = ADVPROP__V1__RECEIPT__INIT;

    *out_closed = 0;
    open->samples += result->receipt[0].samples;
    open->sum += result->receipt[0].sum;
    open->bad += result->receipt[0].bad;
    APD_TRY(check_bad(run, open, err));
    if (open->samples < run->plan_desc.samples)
        return APD_OK;
    receipt.epoch = open->epoch;
    receipt.samples = open->samples;
    receipt.samples_expected = run->plan_desc.samples;
    receipt.sum = open->sum;
    receipt.sum_expected = apd_plan_receipt(run->plan, open->epoch);
    receipt.complete = 1;
    receipt.match = receipt.sum == receipt.sum_expected && open->samples == run->plan_desc.samples;
    if (run->is_first)
        apd_link_report_receipt(run->link, &receipt);
    if (!receipt.match)
        return apd_fail(
            err, APD_BUG,
            "epoch %u: receipt of %llu samples: expected %016llx over %llu, found %016llx",
            open->epoch, (unsigned long long)open->samples,
            (unsigned long long)receipt.sum_expected, (unsigned long long)run->plan_desc.samples,
            (unsigned long long)open->sum);
    *open = result->receipt[1];
    *out_closed = 1;
    return run_check_shards(run, open->epoch, err);
}
