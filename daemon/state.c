/* See state.h. */
#include "daemon/state.h"

#define STATES      8
#define BIT(state)  (1u << ADVPROP__V1__RUN_STATE__RUN_STATE_##state)
#define FROM(state) [ADVPROP__V1__RUN_STATE__RUN_STATE_##state]

static const unsigned moves[STATES] = {
    FROM(STARTING) = BIT(JOINING) | BIT(FAILED),
    FROM(JOINING) = BIT(TRAINING) | BIT(DRAINING) | BIT(DONE) | BIT(FAILED),
    FROM(TRAINING) = BIT(DRAINING) | BIT(SAVING) | BIT(DONE) | BIT(FAILED),
    FROM(DRAINING) = BIT(SAVING) | BIT(DONE) | BIT(FAILED),
    FROM(SAVING) = BIT(DONE) | BIT(FAILED),
};

static const char *const names[STATES] = {
    FROM(UNKNOWN) = "unknown",   FROM(STARTING) = "starting", FROM(JOINING) = "joining",
    FROM(TRAINING) = "training", FROM(SAVING) = "saving",     FROM(DRAINING) = "draining",
    FROM(DONE) = "done",         FROM(FAILED) = "failed",
};

int apd_state_may_move(Advprop__V1__RunState from, Advprop__V1__RunState to)
{
    return (unsigned)from < STATES && (unsigned)to < STATES && (moves[from] >> to & 1u);
}

int apd_state_ended(Advprop__V1__RunState state)
{
    return state == ADVPROP__V1__RUN_STATE__RUN_STATE_DONE ||
           state == ADVPROP__V1__RUN_STATE__RUN_STATE_FAILED;
}

const char *apd_state_name(Advprop__V1__RunState state)
{
    return (unsigned)state < STATES ? names[state] : names[0];
}
