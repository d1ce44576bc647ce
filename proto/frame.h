/* Frames: a varint length, then that many bytes of one protobuf message.
 *
 * The reader is fed bytes as they come and hands out whole frames; it checks the length against a
 * cap before it allocates anything. No I/O here. */
#ifndef APD_PROTO_FRAME_H
#define APD_PROTO_FRAME_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define APD_FRAME_CAP_NEW      1024u  /* before the peer is accepted */
#define APD_FRAME_CAP_ACCEPTED 65536u /* after */
#define APD_FRAME_HEADER_MAX   5

struct apd_frame_reader {
    size_t cap; /* largest payload accepted; may be changed between frames */
    uint8_t *payload;
    size_t size, have; /* of the payload */
    uint32_t length;
    unsigned header_bytes;
    int in_payload;
    size_t allocated;
};

/* `= {0}` plus cap is a valid empty reader. */
void apd_frame_reader_fini(struct apd_frame_reader *reader);

/* Consumes up to `size` bytes, stops after one whole frame. *out_used: bytes consumed. *out_frame:
 * the payload (owned by the reader, valid until the next call) or NULL if more bytes are needed; an
 * empty message gives a non-NULL pointer and size 0. APD_PROTO: length over the cap or a malformed
 * varint; the connection is then to be closed. */
APD_MUST_USE enum apd_code apd_frame_feed(struct apd_frame_reader *reader, const uint8_t *bytes,
                                          size_t size, size_t *out_used, const uint8_t **out_frame,
                                          size_t *out_size, struct apd_err *err);

/* Whether a frame has begun and is not complete (for deadlines). */
int apd_frame_partial(const struct apd_frame_reader *reader);

/* Writes the header of a payload of `size` bytes to `out`, returns its length. */
size_t apd_frame_header(uint32_t size, uint8_t out[APD_FRAME_HEADER_MAX]);

#endif
