/* What `advprop eval` writes beside its result: a line for every image, a line for every part. Both
 * are CSV, and appear under their names when they are whole. */
#ifndef APD_WORKER_EVAL_FILES_H
#define APD_WORKER_EVAL_FILES_H

#include "base/err.h"
#include "worker/data/dataset.h"
#include "worker/evaluate.h"

#include <stdio.h>

struct apd_eval_file {
    FILE *file; /* NULL: not asked for */
    char path[4096], temporary[4112];
};

/* path NULL: not asked for, and everything below does nothing. `header`: the first line. */
APD_MUST_USE enum apd_code apd_eval_file_open(const char *path, const char *header,
                                              struct apd_eval_file *out, struct apd_err *err);
/* The file appears. */
APD_MUST_USE enum apd_code apd_eval_file_finish(struct apd_eval_file *file, struct apd_err *err);
/* Removes what was not finished. `= {0}` is a valid file not asked for. */
void apd_eval_file_drop(struct apd_eval_file *file);

#define APD_PREDICTIONS_HEADER "bn,part,image,label,predicted,top1,top5,loss"
#define APD_PARTS_HEADER       "suite,bn,part,images,top1,top5,error,loss"

void apd_eval_file_predictions(struct apd_eval_file *file, const char *bn, const char *part,
                               const struct apd_dataset *dataset,
                               const struct apd_prediction *prediction, uint64_t images);
void apd_eval_file_part(struct apd_eval_file *file, const char *suite, const char *bn,
                        const char *part, const struct apd_loss *loss);

#endif
