/* `advprop ckpt`: looks at checkpoints and carries models in and out. One file a command; each
 * reads files, prints on stdout and needs no configuration, data set or backend. */
#ifndef APD_WORKER_CKPT_CKPT_H
#define APD_WORKER_CKPT_CKPT_H

#include "base/err.h"

struct apd_ckpt_options {
    const char *path[2]; /* a file, or a run directory for its newest sound checkpoint */
    const char *output;  /* export, import */
    const char *arch;    /* import; NULL: as the tensors say */
    double tolerance;    /* diff: largest difference of two equal values */
    int json, tensors;   /* tensors: ls lists them, too */
    int full, ema;       /* export: auxiliary BN, too; the average instead of the weights */
};

/* `advprop-worker --ckpt COMMAND ...`; argv[0] is "--ckpt". Returns the exit status. */
int apd_ckpt_main(int argc, char **argv);

APD_MUST_USE enum apd_code apd_ckpt_ls(const struct apd_ckpt_options *options, struct apd_err *err);
/* APD_DATA after everything that is wrong has been printed. */
APD_MUST_USE enum apd_code apd_ckpt_verify(const struct apd_ckpt_options *options,
                                           struct apd_err *err);
/* *out_equal: whether tensors and settings are. */
APD_MUST_USE enum apd_code apd_ckpt_diff(const struct apd_ckpt_options *options, int *out_equal,
                                         struct apd_err *err);
APD_MUST_USE enum apd_code apd_ckpt_export(const struct apd_ckpt_options *options,
                                           struct apd_err *err);
APD_MUST_USE enum apd_code apd_ckpt_import(const struct apd_ckpt_options *options,
                                           struct apd_err *err);

#endif
