#include "worker/index/webdataset.h"

#include "worker/data/manifest.h"

#include <jansson.h>
#include <string.h>
#include <strings.h>

int apd_wds_name(const char *name, size_t *out_key_size, enum apd_wds_role *out_role)
{
    static const struct {
        const char *extension;
        enum apd_wds_role role;
    } known[] = {
        {"jpg", APD_WDS_IMAGE},  {"jpeg", APD_WDS_IMAGE}, {"png", APD_WDS_IMAGE},
        {"webp", APD_WDS_IMAGE}, {"cls", APD_WDS_CLS},    {"json", APD_WDS_JSON},
    };
    const char *slash = strrchr(name, '/'), *base = slash != NULL ? slash + 1 : name;
    const char *dot = strchr(base, '.');

    if (dot == NULL || dot == base)
        return 0;
    *out_key_size = (size_t)(dot - name);
    *out_role = APD_WDS_OTHER;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcasecmp(dot + 1, known[i].extension) == 0)
            *out_role = known[i].role;
    return 1;
}

static int is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

const char *apd_wds_label_text(const char *text, size_t size, int32_t *out_label)
{
    int32_t label = 0;
    size_t i = 0;

    while (size > 0 && is_space(text[size - 1]))
        size--;
    while (i < size && is_space(text[i]))
        i++;
    if (i == size)
        return "an empty .cls";
    for (; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return "a .cls that is no whole number";
        label = 10 * label + (text[i] - '0');
        if (label >= APD_CLASSES_MAX)
            return "a label of over 1,048,575";
    }
    *out_label = label;
    return NULL;
}

const char *apd_wds_label_json(const char *text, size_t size, int32_t *out_label)
{
    json_t *object = json_loadb(text, size, 0, NULL), *value;
    const char *wrong = NULL;

    *out_label = -1;
    if (!json_is_object(object)) {
        json_decref(object);
        return "a .json that is no object";
    }
    value = json_object_get(object, "cls");
    if (value == NULL)
        value = json_object_get(object, "label");
    if (value != NULL && !json_is_integer(value))
        wrong = "a label in .json that is no whole number";
    else if (value != NULL &&
             (json_integer_value(value) < 0 || json_integer_value(value) >= APD_CLASSES_MAX))
        wrong = "a label in .json that is not from 0 to 1,048,575";
    else if (value != NULL)
        *out_label = (int32_t)json_integer_value(value);
    json_decref(object);
    return wrong;
}
