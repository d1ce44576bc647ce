#include "worker/ckpt/settings.h"

#include <stdlib.h>
#include <string.h>

/* One line of the effective configuration as apd_config_print() writes it: "group:", "  key: value"
 * or "key: value"; anything else becomes a key without value. Adds "group.key": value. */
static int take_line(const char *line, size_t n, char *group, size_t group_size, json_t *out)
{
    int inner = n >= 2 && memcmp(line, "  ", 2) == 0;
    const char *key = inner ? line + 2 : line, *end = line + n;
    const char *colon = memchr(key, ':', (size_t)(end - key));
    const char *value = colon == NULL ? end : colon + 1 + (colon + 1 < end && colon[1] == ' ');
    char name[256];

    if (!inner)
        group[0] = '\0';
    if (colon != NULL && value == end && !inner) {
        (void)snprintf(group, group_size, "%.*s.", (int)(colon - key), key);
        return 0;
    }
    (void)snprintf(name, sizeof name, "%s%.*s", group, (int)((colon == NULL ? end : colon) - key),
                   key);
    return json_object_set_new(out, name, json_stringn(value, (size_t)(end - value)));
}

static json_t *settings_of(const char *yaml)
{
    json_t *settings = json_object();
    char group[128] = "";

    for (const char *line = yaml; *line != '\0';) {
        size_t n = strcspn(line, "\n");

        if (n > 0 && take_line(line, n, group, sizeof group, settings) != 0) {
            json_decref(settings);
            return NULL;
        }
        line += n + (line[n] == '\n');
    }
    return settings;
}

static json_t *metadata_of(const struct apd_safetensors *file)
{
    json_t *object = json_object();
    size_t count;
    const struct apd_meta *metas = apd_safetensors_metas(file, &count);

    for (size_t i = 0; i < count; i++)
        if (strcmp(metas[i].key, "config") != 0 &&
            json_object_set_new(object, metas[i].key, json_string(metas[i].value)) != 0) {
            json_decref(object);
            return NULL;
        }
    return object;
}

static int add_difference(json_t *out, const char *key, const json_t *a, const json_t *b)
{
    if (a != NULL && b != NULL && json_equal(a, b))
        return 0;
    return json_array_append_new(
        out, json_pack("{s:s, s:O*, s:O*}", "key", key, "a", (json_t *)a, "b", (json_t *)b));
}

/* Takes both references. */
static json_t *diff(json_t *a, json_t *b)
{
    json_t *out = json_array(), *value;
    int failed = a == NULL || b == NULL || out == NULL;
    const char *key;

    json_object_foreach(a, key, value)
    {
        failed |= add_difference(out, key, value, json_object_get(b, key)) != 0;
    }
    json_object_foreach(b, key, value)
    {
        if (json_object_get(a, key) == NULL)
            failed |= add_difference(out, key, NULL, value) != 0;
    }
    json_decref(a);
    json_decref(b);
    if (!failed)
        return out;
    json_decref(out);
    return NULL;
}

json_t *apd_settings_diff(const struct apd_safetensors *a, const struct apd_safetensors *b)
{
    const char *of_a = apd_safetensors_meta(a, "config"), *of_b = apd_safetensors_meta(b, "config");

    if (of_a == NULL || of_b == NULL)
        return json_array();
    return diff(settings_of(of_a), settings_of(of_b));
}

json_t *apd_metadata_diff(const struct apd_safetensors *a, const struct apd_safetensors *b)
{
    return diff(metadata_of(a), metadata_of(b));
}
