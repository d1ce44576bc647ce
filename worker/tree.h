/* The one order in which things are summed: a binary tree over lane numbers.
 *
 *   sum(first, n) = n == 1 ? x[first] : sum(first, h) + sum(first + h, n - h),  h =
 * apd_tree_split(n)
 *
 * Halving a range of even length gives two equal ranges, so for a W that is a power of two and
 * divides V each worker's lanes are a whole subtree, and the tree over workers is the rest of the
 * same tree. */
#ifndef APD_WORKER_TREE_H
#define APD_WORKER_TREE_H

#include "base/err.h"

#include <stddef.h>

/* Length of the left part of a range of n > 1. */
static inline int apd_tree_split(int n)
{
    return (n + 1) / 2;
}

/* Sums item 0 .. n - 1 into item 0 in tree order; `add(ctx, dst, src)` does item dst += item src.
 */
APD_MUST_USE enum apd_code
apd_tree_sum(int n, enum apd_code (*add)(void *ctx, int dst, int src, struct apd_err *err),
             void *ctx, struct apd_err *err);

/* x[i][count] for i in 0 .. n - 1, rows `stride` doubles apart; the sum goes to row 0. */
void apd_tree_sum_doubles(double *x, int n, size_t stride, size_t count);

#endif
