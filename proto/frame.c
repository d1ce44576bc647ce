/* Frames: see frame.h. The reader is a state machine over bytes: length varint, then payload. It
 * never allocates more than the cap, and never before the length is known to be within it. */
#include "proto/frame.h"

#include <stdlib.h>
#include <string.h>

#define LAST_HEADER_BYTE_MAX 0x0f /* bits 28..31 of a 32-bit length in the fifth byte */

void apd_frame_reader_fini(struct apd_frame_reader *reader)
{
    free(reader->payload);
    *reader = (struct apd_frame_reader){.cap = reader->cap};
}

static enum apd_code ensure(struct apd_frame_reader *reader, size_t size, struct apd_err *err)
{
    uint8_t *grown;

    if (size <= reader->allocated)
        return APD_OK;
    grown = realloc(reader->payload, size);
    if (grown == NULL)
        return apd_fail(err, APD_NOMEM, "%zu bytes for a frame", size);
    reader->payload = grown;
    reader->allocated = size;
    return APD_OK;
}

/* Takes one byte of the length; in_payload is set with the last one. */
static enum apd_code take_header_byte(struct apd_frame_reader *reader, uint8_t byte,
                                      struct apd_err *err)
{
    unsigned shift = 7 * reader->header_bytes;

    if (reader->header_bytes == APD_FRAME_HEADER_MAX - 1 && byte > LAST_HEADER_BYTE_MAX)
        return apd_fail(err, APD_PROTO, "frame length of more than 32 bits (byte 5 is 0x%02x)",
                        byte);
    if (reader->header_bytes > 0 && byte == 0)
        return apd_fail(err, APD_PROTO, "frame length padded with a zero byte %u",
                        reader->header_bytes + 1);
    reader->length |= (uint32_t)(byte & 0x7f) << shift;
    reader->header_bytes++;
    if (byte & 0x80)
        return APD_OK;
    if (reader->length > reader->cap)
        return apd_fail(err, APD_PROTO, "frame of %u bytes, at most %zu are accepted here",
                        reader->length, reader->cap);
    /* One byte at least, so that an empty message has an address. */
    APD_TRY(ensure(reader, reader->length > 0 ? reader->length : 1, err));
    reader->size = reader->length;
    reader->have = 0;
    reader->in_payload = 1;
    return APD_OK;
}

static void next_frame(struct apd_frame_reader *reader)
{
    reader->length = 0;
    reader->header_bytes = 0;
    reader->in_payload = 0;
    reader->size = 0;
    reader->have = 0;
}

enum apd_code apd_frame_feed(struct apd_frame_reader *reader, const uint8_t *bytes, size_t size,
                             size_t *out_used, const uint8_t **out_frame, size_t *out_size,
                             struct apd_err *err)
{
    size_t used = 0, part;

    *out_used = 0;
    *out_frame = NULL;
    *out_size = 0;
    while (used < size && !reader->in_payload)
        APD_TRY(take_header_byte(reader, bytes[used++], err));
    if (reader->in_payload) {
        part = reader->size - reader->have;
        if (part > size - used)
            part = size - used;
        if (part > 0)
            memcpy(reader->payload + reader->have, bytes + used, part);
        reader->have += part;
        used += part;
        if (reader->have == reader->size) {
            *out_frame = reader->payload;
            *out_size = reader->size;
            next_frame(reader);
        }
    }
    *out_used = used;
    return APD_OK;
}

int apd_frame_partial(const struct apd_frame_reader *reader)
{
    return reader->header_bytes > 0;
}

size_t apd_frame_header(uint32_t size, uint8_t out[APD_FRAME_HEADER_MAX])
{
    size_t n = 0;

    while (size >= 0x80) {
        out[n++] = (uint8_t)(size | 0x80);
        size >>= 7;
    }
    out[n++] = (uint8_t)size;
    return n;
}
