/* The coordinator's world in the simulation: records and checks what the logic does. Inside of the
 * simulation only. */
#ifndef APD_TESTS_SIM_SIM_WORLD_H
#define APD_TESTS_SIM_SIM_WORLD_H

#include "tests/sim/sim.h"

struct apd_world sim_world(struct sim *sim);

void sim_world_wake(struct sim *sim);

/* When the next disk job is done, UINT64_MAX: none; and doing it. */
uint64_t sim_world_disk_due(const struct sim *sim);
void sim_world_disk_run(struct sim *sim);

#endif
