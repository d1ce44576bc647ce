/* The states of a run and the legal moves between them; docs/coordinator.md has the picture. Pure.
 */
#ifndef APD_DAEMON_STATE_H
#define APD_DAEMON_STATE_H

#include "proto/advprop.pb-c.h"

/* Whether a run in `from` may go to `to`. Staying is no move. */
int apd_state_may_move(Advprop__V1__RunState from, Advprop__V1__RunState to);

/* DONE or FAILED: nothing follows. */
int apd_state_ended(Advprop__V1__RunState state);

/* "training"; the same word as in status.json. */
const char *apd_state_name(Advprop__V1__RunState state);

#endif
