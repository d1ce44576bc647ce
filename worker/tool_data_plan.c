#include "worker/tool.h"

#include <inttypes.h>
#include <stdio.h>

static void print_images(struct apd_plan *plan, uint64_t step, uint32_t lane, uint32_t first,
                         uint32_t count, const char *branch)
{
    if (count == 0)
        return;
    printf("%" PRIu64 "\t%" PRIu32 "\t%s\t", step, lane, branch);
    for (uint32_t i = first; i < first + count; i++) {
        struct apd_place place;

        apd_plan_at(plan, step, lane, i, &place);
        printf("%s%" PRIu32 ":%" PRIu64, i > first ? " " : "", place.epoch, place.sample);
    }
    putchar('\n');
}

enum apd_code apd_tool_data_plan(struct apd_job *job, uint32_t epoch, uint64_t steps,
                                 struct apd_err *err)
{
    uint64_t batch = (uint64_t)job->config.train.batch, first;
    struct apd_plan *plan = NULL;
    struct apd_plan_desc desc;
    uint32_t clean, aux;

    APD_TRY(apd_job_open_data(job, err));
    apd_job_plan_desc(job, &desc);
    APD_TRY(apd_plan_create(&desc, &plan, err));
    apd_config_lane_split(&job->config, &clean, &aux);
    first = (epoch * desc.samples + batch - 1) / batch;
    printf("# step\tlane\tbranch\tepoch:sample ...\n");
    for (uint64_t step = first; step < first + steps; step++)
        for (uint32_t lane = 0; lane < desc.lanes; lane++) {
            print_images(plan, step, lane, 0, clean, "clean");
            print_images(plan, step, lane, desc.lane_batch - aux, aux, "aux");
        }
    apd_plan_destroy(&plan);
    if (fflush(stdout) != 0 || ferror(stdout))
        return apd_fail_errno(err, "writing the plan");
    return APD_OK;
}
