/* The NCCL communicator with genuine libraries where there is no GPU: one clear sentence, on all
 * ranks, at once. */
#include "tests/emu/fake_cuda.h"
#include "tests/emu/ranks.h"
#include "worker/comm_nccl.h"

#include <nccl.h>
#include <stdio.h>
#include <string.h>

enum { SKIPPED = 77, WRONG = 1 };

static int scenario(struct apd_comm *host, void *arg)
{
    struct apd_err err = {0};
    struct apd_backend *be = NULL;
    struct apd_comm *comm = NULL;
    int devices = 0, version = 0;
    enum apd_code rc;

    (void)arg;
    if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0)
        return SKIPPED;
    if (ncclGetVersion(&version) != ncclSuccess || version < NCCL_VERSION(2, 18, 0))
        return WRONG;
    /* Its calls fail, and leave a backend without a stream. */
    if (fake_cuda_create(0, &be, &err) != APD_DEVICE || be == NULL)
        return WRONG;
    rc = apd_comm_nccl(be, host, 1, 5, &comm, &err);
    fprintf(stderr, "%s: %s\n", apd_code_name(rc), err.msg);
    return rc == APD_DEVICE && strstr(err.msg, "driver") != NULL ? 0 : WRONG;
}

int main(void)
{
    struct ranks_end end = ranks_wait(ranks_start(2, scenario, NULL, NULL));

    for (int r = 0; r < 2; r++)
        fprintf(stderr, "rank %d: %d: %s", r, end.status[r], end.text[r]);
    return end.status[0] != 0 ? end.status[0] : end.status[1];
}
