/* Fields of a status in JSON (proto/message_json.h), and numbers as people read them. The views
 * take JSON, so that they show a live status and status.json alike; an absent field reads as 0 or
 * "". */
#ifndef APD_CLI_FIELDS_H
#define APD_CLI_FIELDS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

double apd_field(const json_t *object, const char *name);
uint64_t apd_field_u64(const json_t *object, const char *name);
const char *apd_field_text(const json_t *object, const char *name);
int apd_field_bool(const json_t *object, const char *name);

#define APD_NUMBER_MAX 32

/* 1281167 -> "1,281,167". Returns out. */
const char *apd_grouped(uint64_t number, char out[APD_NUMBER_MAX]);

/* 3725 -> "1:02:05", 65 -> "1:05". Returns out. */
const char *apd_duration(double seconds, char out[APD_NUMBER_MAX]);

#endif
