/* The last events of the run, numbered from 1, for GetEvents. Pure. */
#ifndef APD_DAEMON_EVENT_RING_H
#define APD_DAEMON_EVENT_RING_H

#include "proto/advprop.pb-c.h"

#include <stdarg.h>
#include <stdint.h>

#define APD_EVENT_RING 512
#define APD_EVENT_TEXT 640

struct apd_event {
    Advprop__V1__Event message; /* its text points to `text` */
    char text[APD_EVENT_TEXT];
};

struct apd_event_ring {
    struct apd_event *event; /* [APD_EVENT_RING] */
    uint64_t count;          /* number of the newest */
};

/* 0 if out of memory. */
int apd_event_ring_init(struct apd_event_ring *ring);
void apd_event_ring_fini(struct apd_event_ring *ring);

/* `level` and `name` must outlive the ring. */
const Advprop__V1__Event *apd_event_ring_add(struct apd_event_ring *ring, double date_s,
                                             uint64_t generation, const char *level,
                                             const char *name, const char *format, va_list args);

/* NULL if it is not or no longer there. */
Advprop__V1__Event *apd_event_ring_get(const struct apd_event_ring *ring, uint64_t number);

/* Number of the oldest event that is there; count + 1 if none is. */
uint64_t apd_event_ring_first(const struct apd_event_ring *ring);

#endif
