/* See message_json.h. Walks the field table protobuf-c generates (offset, type, label). */
#include "proto/message_json.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *text_json(const char *text)
{
    json_t *value = json_string(text != NULL ? text : "");

    if (value == NULL) { /* not UTF-8: keep the readable part */
        size_t n = strlen(text);
        char *clean = malloc(n + 1);

        if (clean == NULL)
            return NULL;
        for (size_t i = 0; i <= n; i++)
            clean[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
        value = json_string(clean);
        free(clean);
    }
    return value;
}

static json_t *hex_json(const uint8_t *bytes, size_t size)
{
    char *text = malloc(2 * size + 1);
    json_t *value;

    if (text == NULL)
        return NULL;
    text[0] = '\0';
    for (size_t i = 0; i < size; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    value = json_string(text);
    free(text);
    return value;
}

static json_t *fixed64_json(uint64_t number)
{
    char text[17];

    (void)snprintf(text, sizeof text, "%016" PRIx64, number);
    return json_string(text);
}

/* Length of "RUN_STATE_" for the type RunState: what all its values begin with. */
static size_t enum_prefix(const ProtobufCEnumDescriptor *type)
{
    const char *first = type->values[0].name;
    size_t n = strlen(first);

    for (unsigned i = 1; i < type->n_values; i++)
        for (size_t k = 0; k < n; k++)
            if (type->values[i].name[k] != first[k])
                n = k;
    while (n > 0 && first[n - 1] != '_')
        n--;
    return n;
}

void apd_enum_word(const ProtobufCEnumDescriptor *type, int number, char *out, size_t size)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(type, number);
    size_t i = 0;

    if (value == NULL) {
        (void)snprintf(out, size, "%d", number);
        return;
    }
    for (const char *at = value->name + enum_prefix(type); *at != '\0' && i + 1 < size; at++)
        out[i++] = (char)tolower((unsigned char)*at);
    out[i] = '\0';
}

static json_t *enum_json(const ProtobufCEnumDescriptor *type, int number)
{
    char text[64];

    if (protobuf_c_enum_descriptor_get_value(type, number) == NULL)
        return json_integer(number);
    apd_enum_word(type, number, text, sizeof text);
    return json_string(text);
}

static json_t *real_json(double number)
{
    return isfinite(number) ? json_real(number) : json_null();
}

/* `at` points to one element of the field's C type. */
static json_t *element_json(const ProtobufCFieldDescriptor *field, const void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return json_integer(*(const int32_t *)at);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return json_integer(*(const uint32_t *)at);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
        return json_integer(*(const int64_t *)at);
    case PROTOBUF_C_TYPE_FIXED64:
        return fixed64_json(*(const uint64_t *)at);
    case PROTOBUF_C_TYPE_FLOAT:
        return real_json((double)*(const float *)at);
    case PROTOBUF_C_TYPE_DOUBLE:
        return real_json(*(const double *)at);
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *)at);
    case PROTOBUF_C_TYPE_ENUM:
        return enum_json(field->descriptor, *(const int *)at);
    case PROTOBUF_C_TYPE_STRING:
        return text_json(*(char *const *)at);
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *data = at;

        return hex_json(data->data, data->len);
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        return apd_message_json(*(ProtobufCMessage *const *)at);
    }
    return json_null();
}

static size_t element_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_DOUBLE:
        return sizeof(double);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return sizeof(uint32_t);
    }
}

static json_t *list_json(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const char *base = (const char *)message;
    size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
    const char *items = *(char *const *)(const void *)(base + field->offset);
    json_t *list = json_array();

    for (size_t i = 0; list != NULL && i < count; i++) {
        if (json_array_append_new(list, element_json(field, items + i * element_size(field))) !=
            0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static int is_absent(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const char *base = (const char *)message;

    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        uint32_t which = *(const uint32_t *)(const void *)(base + field->quantifier_offset);

        return which != field->id;
    }
    return field->label != PROTOBUF_C_LABEL_REPEATED && field->type == PROTOBUF_C_TYPE_MESSAGE &&
           *(void *const *)(const void *)(base + field->offset) == NULL;
}

json_t *apd_message_json(const ProtobufCMessage *message)
{
    json_t *object = json_object();

    for (unsigned i = 0; object != NULL && i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        json_t *value;

        if (is_absent(message, field))
            continue;
        value = field->label == PROTOBUF_C_LABEL_REPEATED
                    ? list_json(message, field)
                    : element_json(field, (const char *)message + field->offset);
        if (json_object_set_new(object, field->name, value) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}
