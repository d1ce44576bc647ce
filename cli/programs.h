/* Where the other programs of this build are. */
#ifndef APD_CLI_PROGRAMS_H
#define APD_CLI_PROGRAMS_H

#include "base/err.h"

#include <stddef.h>

#define APD_PROGRAM_MAX 4096 /* PATH_MAX, as realpath() wants */

/* The executable `name` ("advpropd", "advprop-worker"): beside this one, in the build tree this one
 * lies in, or on PATH. APD_CONFIG says where it was looked for. */
APD_MUST_USE enum apd_code apd_program_find(const char *name, char out[APD_PROGRAM_MAX],
                                            struct apd_err *err);

#endif
