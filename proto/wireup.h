/* What rank 0 broadcasts over MPI at the start, so that workers can reach the coordinator: plain
 * bytes, sent as they are between equal builds (the version is checked first). No MPI here. */
#ifndef APD_PROTO_WIREUP_H
#define APD_PROTO_WIREUP_H

#include <stdint.h>

#define APD_WIREUP_MAGIC     UINT32_C(0x41504457)
#define APD_WIREUP_ADDRESSES 8
#define APD_SECRET_BYTES     32

struct apd_wireup {
    uint32_t magic;
    uint32_t port;
    uint64_t generation;
    uint32_t failed; /* the coordinator cannot go on: `text`; workers leave with `status` */
    int32_t status;
    char text[512];
    uint8_t secret[APD_SECRET_BYTES];
    char address[APD_WIREUP_ADDRESSES][64]; /* numeric, tried in order; "" ends the list */
    char version[32];
};

#endif
