/* See pack.h. */
#include "proto/pack.h"

#include "proto/frame.h"

#include <stdlib.h>
#include <string.h>

enum apd_code apd_frame_pack(const ProtobufCMessage *message, uint8_t **out, size_t *out_size,
                             struct apd_err *err)
{
    size_t size = protobuf_c_message_get_packed_size(message), header_size;
    uint8_t header[APD_FRAME_HEADER_MAX];
    uint8_t *frame;

    if (size > APD_FRAME_CAP_ACCEPTED)
        return apd_fail(err, APD_BUG, "%s of %zu bytes does not fit a frame of %u",
                        message->descriptor->short_name, size, APD_FRAME_CAP_ACCEPTED);
    header_size = apd_frame_header((uint32_t)size, header);
    frame = malloc(header_size + size);
    if (frame == NULL)
        return apd_fail(err, APD_NOMEM, "%zu bytes for a frame", header_size + size);
    memcpy(frame, header, header_size);
    protobuf_c_message_pack(message, frame + header_size);
    *out = frame;
    *out_size = header_size + size;
    return APD_OK;
}
