/* Any message of advprop.proto as JSON, by its protobuf-c description: one place makes status.json,
 * the records of events.jsonl and metrics.jsonl, and `--json` output.
 *
 *   names          as in advprop.proto ("loss_clean"); every scalar field is present, also zeros
 *   enums          their value's name without the type's prefix, small: RUN_STATE_DONE -> "done"
 *   fixed64        16 hex digits ("00f3..."): sums mod 2^64
 *   bytes          hex digits
 *   NaN, infinity  null
 *   absent messages and unset members of a oneof are left out */
#ifndef APD_PROTO_MESSAGE_JSON_H
#define APD_PROTO_MESSAGE_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

/* A new reference, NULL only when out of memory. */
json_t *apd_message_json(const ProtobufCMessage *message);

/* The word of an enum's value as above ("noise_pass"), its number if the type has no such value. */
void apd_enum_word(const ProtobufCEnumDescriptor *type, int number, char *out, size_t size);

#endif
