/* A protobuf message as one frame in one fresh buffer. No I/O here. */
#ifndef APD_PROTO_PACK_H
#define APD_PROTO_PACK_H

#include "base/err.h"

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/* Header and payload of `message`; the caller frees *out with free(). APD_BUG: over
 * APD_FRAME_CAP_ACCEPTED, which no peer would read. */
APD_MUST_USE enum apd_code apd_frame_pack(const ProtobufCMessage *message, uint8_t **out,
                                          size_t *out_size, struct apd_err *err);

#endif
