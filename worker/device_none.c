#include "worker/device.h"

enum apd_code apd_device_has_cuda(struct apd_err *err)
{
    return apd_fail(err, APD_DEVICE,
                    "this advprop-worker was built without CUDA; build it where nvcc, cuDNN and "
                    "NCCL are installed");
}

enum apd_code apd_device_open_cuda(const struct apd_config *config,
                                   const struct apd_device_place *place, struct apd_backend **out,
                                   char text[128], struct apd_err *err)
{
    (void)config, (void)place, (void)out, (void)text;
    return apd_device_has_cuda(err);
}

enum apd_code apd_device_comm_cuda(const struct apd_config *config, struct apd_backend *be,
                                   struct apd_comm *host, struct apd_comm **out,
                                   struct apd_err *err)
{
    (void)config, (void)be, (void)host, (void)out;
    return apd_device_has_cuda(err);
}

enum apd_code apd_device_look(struct apd_device_report *out, struct apd_err *err)
{
    (void)out;
    return apd_device_has_cuda(err);
}

enum apd_code apd_device_settled_cuda(struct apd_backend *be, struct apd_err *err)
{
    (void)be;
    return apd_device_has_cuda(err);
}
