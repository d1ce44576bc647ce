/* Time. Durations come from the monotonic clock, dates from the realtime clock. */
#ifndef APD_BASE_CLOCK_H
#define APD_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Milliseconds / seconds of CLOCK_MONOTONIC. */
uint64_t apd_now_ms(void);
double apd_now_s(void);

/* Seconds since 1970, UTC. */
double apd_date_s(void);

/* "2026-11-22T21:40:00.123Z" of `date_s` (as from apd_date_s) into out (>= 32 bytes). */
void apd_date_format(double date_s, char *out, size_t size);

#endif
