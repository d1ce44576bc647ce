/* See fields.h. */
#include "cli/fields.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

double apd_field(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

uint64_t apd_field_u64(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    return json_is_integer(value) && json_integer_value(value) > 0
               ? (uint64_t)json_integer_value(value)
               : 0;
}

const char *apd_field_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text != NULL ? text : "";
}

int apd_field_bool(const json_t *object, const char *name)
{
    return json_is_true(json_object_get(object, name));
}

const char *apd_grouped(uint64_t number, char out[APD_NUMBER_MAX])
{
    char digits[APD_NUMBER_MAX], *to = out;
    size_t n = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, number);

    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return out;
}

const char *apd_duration(double seconds, char out[APD_NUMBER_MAX])
{
    unsigned long whole = seconds > 0 && seconds < 1e9 ? (unsigned long)(seconds + 0.5) : 0;

    if (whole < 3600)
        (void)snprintf(out, APD_NUMBER_MAX, "%lu:%02lu", whole / 60, whole % 60);
    else
        (void)snprintf(out, APD_NUMBER_MAX, "%lu:%02lu:%02lu", whole / 3600, whole / 60 % 60,
                       whole % 60);
    return out;
}
