/* See overrides.h. */
#include "cli/overrides.h"

#include <string.h>

error_t apd_overrides_take(struct apd_overrides *overrides, char *arg, struct argp_state *state)
{
    if (overrides->path == NULL) {
        overrides->path = arg;
        return 0;
    }
    if (strchr(arg, '=') == NULL)
        argp_error(state, "\"%s\": expected key=value after %s", arg, overrides->path);
    if (overrides->count >= APD_OVERRIDES_MAX)
        argp_error(state, "more than %d key=value arguments", APD_OVERRIDES_MAX);
    overrides->text[overrides->count++] = arg;
    return 0;
}

enum apd_code apd_overrides_load(const struct apd_overrides *overrides, struct apd_config *out,
                                 struct apd_err *err)
{
    return apd_config_load(overrides->path, overrides->text, overrides->count, out, err);
}
