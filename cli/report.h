/* The last words of `advprop train`: what came out of a run. */
#ifndef APD_CLI_REPORT_H
#define APD_CLI_REPORT_H

#include <jansson.h>
#include <stdio.h>

/* images_per_s: mean over the training of this start; 0: not known. run_dir: absolute. */
void apd_report_print(const json_t *status, const char *run_dir, double images_per_s, FILE *out);

#endif
