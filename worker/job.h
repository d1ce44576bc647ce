/* What every mode of the worker program needs first: configuration, data, backend, network. */
#ifndef APD_WORKER_JOB_H
#define APD_WORKER_JOB_H

#include "base/err.h"
#include "kernels/backend.h"
#include "proto/config.h"
#include "proto/plan.h"
#include "worker/comm.h"
#include "worker/data/sampler.h"
#include "worker/model/arch.h"
#include "worker/model/params.h"

struct apd_job {
    struct apd_config config;
    const char *run_dir;   /* may be NULL */
    struct apd_comm *comm; /* on the host's memory */
    int workers_on_host;   /* that share this host's cores */
    int local_rank;        /* of this worker among them */
    struct apd_dataset *train, *test;
    struct apd_shape image; /* that samplers of both give */
    struct apd_backend *be;
    struct apd_comm *device_comm; /* on the backend's memory; made by those who train, or NULL */
    char backend_text[128];       /* "cpu avx512 nChw16c, 1 thread" */
    struct apd_arch arch;
    struct apd_params *params;
};

/* Opens train and test data. */
APD_MUST_USE enum apd_code apd_job_open_data(struct apd_job *job, struct apd_err *err);

/* How samples of a split become images. */
void apd_job_sampler(const struct apd_job *job, enum apd_split split,
                     struct apd_sampler_settings *out);

/* Makes the architecture for the data's images and the backend. After the data. */
APD_MUST_USE enum apd_code apd_job_open_device(struct apd_job *job, struct apd_err *err);
/* Makes the parameters (zero). After the device. */
APD_MUST_USE enum apd_code apd_job_make_params(struct apd_job *job, struct apd_err *err);

/* The plan of the training data; its shard list stays the data set's. */
void apd_job_plan_desc(const struct apd_job *job, struct apd_plan_desc *out);

/* Frees all but the communicator. */
void apd_job_fini(struct apd_job *job);

#endif
