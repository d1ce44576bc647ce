/* Softmax cross-entropy. Rows are shared among the threads, each row's result is kept, and the sums
 * are made afterwards in the order of the rows. exp in float, sums in double. */
#include "kernels/cpu/cpu.h"
#include "kernels/shape.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <string.h>

struct row_result {
    double ce;
    int counted;
    int rank; /* classes before the label */
};

/* The target of one image: `rest` for most classes, more at one or two labels. */
struct target {
    double rest;
    int label[2];
    double extra[2];
};

static struct target target_of(const struct apd_targets *t, int classes, int i)
{
    double rest = t->smoothing / (classes - 1), peak = 1 - t->smoothing - rest;
    double first = t->label2 != NULL ? ((const float *)t->keep)[i] : 1;
    int second = t->label2 != NULL ? t->label2[i] : t->label[i];

    assert(t->label[i] >= 0 && t->label[i] < classes && second >= 0 && second < classes);
    return (struct target){
        .rest = rest,
        .label = {t->label[i], second},
        .extra = {peak * first, peak * (1 - first)},
    };
}

static int rank_of(const float *z, int classes, int label)
{
    int before = 0;

    if (isnan(z[label]))
        return INT_MAX;
    for (int k = 0; k < classes; k++)
        before += z[k] > z[label] || (z[k] == z[label] && k < label);
    return before;
}

/* A NaN anywhere makes it NaN. */
static double log_sum_exp(const float *z, int classes)
{
    float top = z[0];
    double sum = 0;

    for (int k = 1; k < classes; k++)
        top = z[k] > top || isnan(z[k]) ? z[k] : top;
    for (int k = 0; k < classes; k++)
        sum += expf(z[k] - top);
    return top + log(sum);
}

static double cross_entropy(const struct target *t, const float *z, int classes, double lse)
{
    double ce = 0;

    for (int j = 0; j < 2; j++)
        if (t->extra[j] != 0)
            ce += t->extra[j] * (lse - z[t->label[j]]);
    if (t->rest != 0)
        for (int k = 0; k < classes; k++)
            ce += t->rest * (lse - z[k]);
    return ce;
}

static struct row_result one_row(const struct apd_targets *targets, int classes, int i,
                                 const float *z, float *d_z)
{
    float weight = ((const float *)targets->weight)[i];
    struct row_result result = {.counted = weight != 0};
    struct target t;
    double lse;

    if (weight == 0) {
        if (d_z != NULL)
            memset(d_z, 0, (size_t)classes * sizeof *d_z);
        return result;
    }
    t = target_of(targets, classes, i);
    lse = log_sum_exp(z, classes);
    result.ce = cross_entropy(&t, z, classes, lse);
    result.rank = rank_of(z, classes, t.label[0]);
    if (d_z != NULL) {
        for (int k = 0; k < classes; k++)
            d_z[k] = weight * (expf((float)(z[k] - lse)) - (float)t.rest);
        for (int j = 0; j < 2; j++)
            d_z[t.label[j]] -= weight * (float)t.extra[j];
    }
    return result;
}

static enum apd_code cpu_softmax_ce(struct apd_backend *be, int n, int classes, const void *logits,
                                    const struct apd_targets *targets,
                                    const struct apd_segment *seg, int segments, double *loss,
                                    void *d_logits, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    size_t width = (size_t)classes;
    struct row_result *rows;

    assert(classes >= 2 && apd_segments_ok(seg, segments, n));
    APD_TRY(cpu_reserve(cpu, CPU_ROWS, ((size_t)n + 1) * sizeof *rows, err));
    rows = cpu->scratch[CPU_ROWS].data;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, (size_t)n *width * 8))
    for (int i = 0; i < n; i++)
        rows[i] = one_row(targets, classes, i, (const float *)logits + (size_t)i * width,
                          d_logits != NULL ? (float *)d_logits + (size_t)i * width : NULL);
    for (int s = 0; s < segments; s++) {
        struct apd_loss sum = {0};

        for (int i = seg[s].first; i < seg[s].first + seg[s].count; i++) {
            sum.ce_sum += rows[i].ce;
            sum.images += rows[i].counted;
            sum.top1 += rows[i].counted && rows[i].rank < 1;
            sum.top5 += rows[i].counted && rows[i].rank < 5;
        }
        apd_loss_put(&sum, loss + s * APD_LOSS_DOUBLES);
    }
    return APD_OK;
}

void cpu_loss_ops(struct apd_backend_ops *ops)
{
    ops->softmax_ce = cpu_softmax_ce;
}
