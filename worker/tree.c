#include "worker/tree.h"

struct sum {
    enum apd_code (*add)(void *ctx, int dst, int src, struct apd_err *err);
    void *ctx;
};

static enum apd_code sum_range(const struct sum *sum, int first, int n, struct apd_err *err)
{
    int half;

    if (n <= 1)
        return APD_OK;
    half = apd_tree_split(n);
    APD_TRY(sum_range(sum, first, half, err));
    APD_TRY(sum_range(sum, first + half, n - half, err));
    return sum->add(sum->ctx, first, first + half, err);
}

enum apd_code apd_tree_sum(int n,
                           enum apd_code (*add)(void *ctx, int dst, int src, struct apd_err *err),
                           void *ctx, struct apd_err *err)
{
    struct sum sum = {add, ctx};

    return sum_range(&sum, 0, n, err);
}

void apd_tree_sum_doubles(double *x, int n, size_t stride, size_t count)
{
    int half;
    double *right;

    if (n <= 1)
        return;
    half = apd_tree_split(n);
    right = x + (size_t)half * stride;
    apd_tree_sum_doubles(x, half, stride, count);
    apd_tree_sum_doubles(right, n - half, stride, count);
    for (size_t i = 0; i < count; i++)
        x[i] += right[i];
}
