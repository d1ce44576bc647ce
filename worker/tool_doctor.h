/* `advprop doctor`: what this host and this build have for training, and what is wrong with it.
 * Facts are gathered into JSON (tool_doctor.c), which is printed as it is or as text
 * (tool_doctor_show.c). No configuration, no MPI start, no coordinator. */
#ifndef APD_WORKER_TOOL_DOCTOR_H
#define APD_WORKER_TOOL_DOCTOR_H

#include "base/err.h"

#include <jansson.h>

/* Exit status 0 if training with `device: auto` can run here, 69 if not. */
int apd_tool_doctor_main(int argc, char **argv);

void apd_doctor_show(const json_t *facts);

/* Some steps on the GPU beside the same on the CPU. Appends {"name", "pass", "text"} to `tests`.
 * APD_DEVICE if one fails, when all are done. */
APD_MUST_USE enum apd_code apd_doctor_test(json_t *tests, struct apd_err *err);

#endif
