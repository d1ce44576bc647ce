/* Collectives over MPI, for the CPU path. See comm.h. */
#ifndef APD_WORKER_COMM_MPI_H
#define APD_WORKER_COMM_MPI_H

#include "worker/comm.h"

#include <mpi.h>

/* Takes a communicator of the workers alone; frees it in destroy. */
APD_MUST_USE enum apd_code apd_comm_mpi(MPI_Comm workers, struct apd_comm **out,
                                        struct apd_err *err);

/* "Open MPI v4.1.4": the library's name and version, without its package's. */
void apd_mpi_library(char out[128]);

#endif
