/* See link_queue.h. */
#include "worker/link_queue.h"

#include "proto/pack.h"

#include <stdlib.h>

#define STEPS_KEPT 256

void apd_link_queue_init(struct apd_link_queue *queue)
{
    *queue = (struct apd_link_queue){0};
    queue->end = &queue->first;
    pthread_mutex_init(&queue->mutex, NULL);
}

void apd_link_queue_fini(struct apd_link_queue *queue)
{
    struct apd_link_frame *frame;

    while ((frame = apd_link_queue_pop(queue)) != NULL)
        apd_link_frame_free(frame);
    pthread_mutex_destroy(&queue->mutex);
}

struct apd_link_frame *apd_link_frame_create(const Advprop__V1__WorkerMessage *message)
{
    struct apd_link_frame *frame = calloc(1, sizeof *frame);
    struct apd_err err;

    if (frame == NULL)
        return NULL;
    frame->is_step = message->kind_case == ADVPROP__V1__WORKER_MESSAGE__KIND_STEP;
    if (apd_frame_pack(&message->base, &frame->bytes, &frame->size, &err) != APD_OK) {
        free(frame);
        return NULL;
    }
    return frame;
}

void apd_link_frame_free(struct apd_link_frame *frame)
{
    if (frame == NULL)
        return;
    free(frame->bytes);
    free(frame);
}

/* Takes the first frame at or behind *at out of the queue. */
static struct apd_link_frame *take(struct apd_link_queue *queue, struct apd_link_frame **at)
{
    struct apd_link_frame *frame = *at;

    *at = frame->next;
    if (*at == NULL)
        queue->end = at;
    queue->steps -= (unsigned)frame->is_step;
    frame->next = NULL;
    return frame;
}

static struct apd_link_frame *take_oldest_step(struct apd_link_queue *queue)
{
    struct apd_link_frame **at = &queue->first;

    while (!(*at)->is_step)
        at = &(*at)->next;
    return take(queue, at);
}

void apd_link_queue_push(struct apd_link_queue *queue, struct apd_link_frame *frame)
{
    struct apd_link_frame *dropped = NULL;

    pthread_mutex_lock(&queue->mutex);
    if (frame->is_step && queue->steps >= STEPS_KEPT)
        dropped = take_oldest_step(queue);
    queue->steps += (unsigned)frame->is_step;
    *queue->end = frame;
    queue->end = &frame->next;
    pthread_mutex_unlock(&queue->mutex);
    apd_link_frame_free(dropped);
}

struct apd_link_frame *apd_link_queue_pop(struct apd_link_queue *queue)
{
    struct apd_link_frame *frame = NULL;

    pthread_mutex_lock(&queue->mutex);
    if (queue->first != NULL)
        frame = take(queue, &queue->first);
    pthread_mutex_unlock(&queue->mutex);
    return frame;
}
