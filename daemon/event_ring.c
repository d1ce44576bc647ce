/* See event_ring.h. */
#include "daemon/event_ring.h"

#include <stdio.h>
#include <stdlib.h>

int apd_event_ring_init(struct apd_event_ring *ring)
{
    ring->event = calloc(APD_EVENT_RING, sizeof *ring->event);
    ring->count = 0;
    return ring->event != NULL;
}

void apd_event_ring_fini(struct apd_event_ring *ring)
{
    free(ring->event);
    *ring = (struct apd_event_ring){0};
}

const Advprop__V1__Event *apd_event_ring_add(struct apd_event_ring *ring, double date_s,
                                             uint64_t generation, const char *level,
                                             const char *name, const char *format, va_list args)
{
    struct apd_event *event = &ring->event[ring->count++ % APD_EVENT_RING];

    /* A longer text is cut: its head says what happened. */
    (void)vsnprintf(event->text, sizeof event->text, format, args);
    advprop__v1__event__init(&event->message);
    event->message.number = ring->count;
    event->message.date_s = date_s;
    event->message.generation = generation;
    event->message.level = (char *)level;
    event->message.name = (char *)name;
    event->message.text = event->text;
    return &event->message;
}

uint64_t apd_event_ring_first(const struct apd_event_ring *ring)
{
    return ring->count > APD_EVENT_RING ? ring->count - APD_EVENT_RING + 1 : 1;
}

Advprop__V1__Event *apd_event_ring_get(const struct apd_event_ring *ring, uint64_t number)
{
    if (number > ring->count || number < apd_event_ring_first(ring))
        return NULL;
    return &ring->event[(number - 1) % APD_EVENT_RING].message;
}
