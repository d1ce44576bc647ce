/* Softmax cross-entropy of one row z with target t:
 *   CE = sum_k t_k (log sum_j exp z_j - z_k),   dCE/dz = softmax(z) - t. */
#include "kernels/ref/ref.h"
#include "kernels/shape.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

static double smoothed(double smoothing, int classes, int label, int k)
{
    return k == label ? 1 - smoothing : smoothing / (classes - 1);
}

static double target(const struct apd_targets *t, int classes, int i, int k)
{
    double keep;

    if (t->label2 == NULL)
        return smoothed(t->smoothing, classes, t->label[i], k);
    keep = ((const real *)t->keep)[i];
    return keep * smoothed(t->smoothing, classes, t->label[i], k) +
           (1 - keep) * smoothed(t->smoothing, classes, t->label2[i], k);
}

/* How many classes rank before the label; INT_MAX if the label's logit is NaN. */
static int rank_of(const real *z, int classes, int label)
{
    int before = 0;

    if (isnan(z[label]))
        return INT_MAX;
    for (int k = 0; k < classes; k++)
        before += z[k] > z[label] || (z[k] == z[label] && k < label);
    return before;
}

static double log_sum_exp(const real *z, int classes)
{
    double top = z[0], sum = 0;

    for (int k = 1; k < classes; k++)
        top = z[k] > top || isnan(z[k]) ? z[k] : top;
    for (int k = 0; k < classes; k++)
        sum += exp(z[k] - top);
    return top + log(sum);
}

static void one_image(int classes, const real *z, const struct apd_targets *t, int i,
                      struct apd_loss *loss, real *d_z)
{
    double weight = ((const real *)t->weight)[i], lse;
    int rank;

    if (weight == 0) {
        if (d_z != NULL)
            memset(d_z, 0, (size_t)classes * sizeof *d_z);
        return;
    }
    assert(t->label[i] >= 0 && t->label[i] < classes);
    lse = log_sum_exp(z, classes);
    rank = rank_of(z, classes, t->label[i]);
    loss->images++;
    loss->top1 += rank < 1;
    loss->top5 += rank < 5;
    for (int k = 0; k < classes; k++) {
        double share = target(t, classes, i, k);

        if (share != 0)
            loss->ce_sum += share * (lse - z[k]);
        if (d_z != NULL)
            d_z[k] = (real)(weight * (exp(z[k] - lse) - share));
    }
}

static enum apd_code ref_softmax_ce(struct apd_backend *be, int n, int classes, const void *logits,
                                    const struct apd_targets *targets,
                                    const struct apd_segment *seg, int segments, double *loss,
                                    void *d_logits, struct apd_err *err)
{
    (void)be;
    (void)err;
    assert(classes >= 2 && apd_segments_ok(seg, segments, n));
    for (int s = 0; s < segments; s++) {
        struct apd_loss sum = {0};

        for (int i = seg[s].first; i < seg[s].first + seg[s].count; i++) {
            size_t at = (size_t)i * (size_t)classes;

            one_image(classes, (const real *)logits + at, targets, i, &sum,
                      d_logits != NULL ? (real *)d_logits + at : NULL);
        }
        apd_loss_put(&sum, loss + s * APD_LOSS_DOUBLES);
    }
    return APD_OK;
}

void REF(loss_ops)(struct apd_backend_ops *ops)
{
    ops->softmax_ce = ref_softmax_ce;
}
