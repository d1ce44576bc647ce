/* Settings and metadata of two checkpoints, side by side. */
#ifndef APD_WORKER_CKPT_SETTINGS_H
#define APD_WORKER_CKPT_SETTINGS_H

#include "worker/safetensors.h"

#include <jansson.h>

/* [{"key", "a", "b"}] of the options in the "config" texts that differ; empty if one has none.
 * NULL: no memory. */
json_t *apd_settings_diff(const struct apd_safetensors *a, const struct apd_safetensors *b);

/* The same of the other metadata. */
json_t *apd_metadata_diff(const struct apd_safetensors *a, const struct apd_safetensors *b);

#endif
