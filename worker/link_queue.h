/* Frames waiting to be sent to the coordinator: first in, first out, from any thread. Of step
 * reports only the newest 256 are kept; other messages are never dropped. */
#ifndef APD_WORKER_LINK_QUEUE_H
#define APD_WORKER_LINK_QUEUE_H

#include "proto/advprop.pb-c.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct apd_link_frame {
    struct apd_link_frame *next;
    uint8_t *bytes;
    size_t size;
    int is_step;
};

struct apd_link_queue {
    pthread_mutex_t mutex;
    struct apd_link_frame *first, **end;
    unsigned steps;
};

/* The queue must stay where it is until fini, which frees what is left. */
void apd_link_queue_init(struct apd_link_queue *queue);
void apd_link_queue_fini(struct apd_link_queue *queue);

/* NULL if the message does not fit a frame or memory is out. */
struct apd_link_frame *apd_link_frame_create(const Advprop__V1__WorkerMessage *message);
void apd_link_frame_free(struct apd_link_frame *frame);

/* Takes ownership. */
void apd_link_queue_push(struct apd_link_queue *queue, struct apd_link_frame *frame);
/* NULL if it is empty; otherwise the caller's. */
struct apd_link_frame *apd_link_queue_pop(struct apd_link_queue *queue);

#endif
