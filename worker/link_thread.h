/* The link thread: one TCP connection on a libuv loop of its own. Connects, sends what is queued,
 * beats, and hands what comes to link_state.h. */
#ifndef APD_WORKER_LINK_THREAD_H
#define APD_WORKER_LINK_THREAD_H

#include "base/err.h"
#include "worker/link_state.h"

struct apd_link_thread;

/* Begins to connect and sends `join` first. Owns `join` on success; borrows `state` until the end.
 * Signals stay with the caller's threads. */
APD_MUST_USE enum apd_code apd_link_thread_start(struct apd_link_state *state,
                                                 struct apd_link_frame *join,
                                                 struct apd_link_thread **out, struct apd_err *err);

/* Something was queued. Any thread. */
void apd_link_thread_wake(struct apd_link_thread *thread);

/* Sends what is queued, for at most a second, then ends. Blocks that long; nulls *thread. */
void apd_link_thread_end(struct apd_link_thread **thread);

#endif
