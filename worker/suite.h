/* The evaluation suites of the field: which folders they consist of, and how their numbers are made
 * of the parts' (docs/evaluation.md). No I/O but looking for folders. */
#ifndef APD_WORKER_SUITE_H
#define APD_WORKER_SUITE_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/data/corrupt/corrupt.h"

#include <stdio.h>

enum apd_suite { APD_SUITE_NONE, APD_SUITE_C, APD_SUITE_R, APD_SUITE_A, APD_SUITE_STYLIZED };

/* "imagenet-c", "imagenet-r", "imagenet-a", "stylized"; APD_SUITE_NONE for another word. */
enum apd_suite apd_suite_named(const char *name);
const char *apd_suite_name(enum apd_suite suite);

/* Whether only the classes that are in the set can be predicted. */
int apd_suite_restricts(enum apd_suite suite);

/* Results of imagenet-c through one BN, by number of the corruption; images 0 where a part is not
 * there. */
struct apd_suite_c {
    struct apd_loss part[APD_CORRUPTIONS][APD_SEVERITIES];
};

/* Share of wrong images over the severities that are there; NaN without any. */
double apd_corruption_error(const struct apd_suite_c *results, int corruption);
/* Unnormalised mean error of the 15 over those that are there, as the authors of Fast AdvProp print
 * it; *out_count: how many that are. */
double apd_suite_c_mean(const struct apd_suite_c *results, int *out_count);
/* mCE: each corruption's error divided by AlexNet's, mean of the 15; NaN if one is not there. */
double apd_suite_c_mce(const struct apd_suite_c *results);

/* Bars of the corruptions' errors as SVG. */
APD_MUST_USE enum apd_code apd_suite_c_chart(const struct apd_suite_c *results, const char *title,
                                             const char *path, struct apd_err *err);

#endif
