/* Little-endian numbers at any address, for file formats. */
#ifndef APD_WORKER_DATA_BYTES_H
#define APD_WORKER_DATA_BYTES_H

#include <stdint.h>

static inline uint32_t apd_get32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t apd_get64(const uint8_t *at)
{
    return apd_get32(at) | (uint64_t)apd_get32(at + 4) << 32;
}

/* Both return what follows the number. */
static inline uint8_t *apd_put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
    return at + 4;
}

static inline uint8_t *apd_put64(uint8_t *at, uint64_t value)
{
    return apd_put32(apd_put32(at, (uint32_t)value), (uint32_t)(value >> 32));
}

#endif
