#include "worker/device.h"

#include "base/log.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

enum { TEXT = 128 };

/* Cores this process may use, shared by the workers of the host. */
static int default_threads(int workers_on_host)
{
    cpu_set_t set;
    int cores = 1;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        cores = CPU_COUNT(&set);
    return cores > workers_on_host ? cores / workers_on_host : 1;
}

static enum apd_code open_cpu(const struct apd_config *config, const struct apd_device_place *place,
                              struct apd_backend **out, char text[TEXT], struct apd_err *err)
{
    struct apd_cpu_options options = {.threads = (int)config->cpu.threads,
                                      .isa = config->cpu.isa,
                                      .conv_algo = config->cpu.conv_algo};

    if (options.threads == 0)
        options.threads = default_threads(place->workers_on_host);
    APD_TRY(apd_backend_cpu(&options, out, err));
    (void)snprintf(text, TEXT, "%s %s, %d thread%s", (*out)->name, (*out)->layout, options.threads,
                   options.threads == 1 ? "" : "s");
    return APD_OK;
}

enum apd_code apd_device_open(const struct apd_config *config, const struct apd_device_place *place,
                              struct apd_backend **out, char text[TEXT], struct apd_err *err)
{
    struct apd_err why = {0};

    if (strcmp(config->device, "ref") == 0) {
        (void)snprintf(text, TEXT, "ref, 1 thread");
        return apd_backend_ref(out, err);
    }
    if (strcmp(config->device, "cuda") == 0)
        return apd_device_open_cuda(config, place, out, text, err);
    if (strcmp(config->device, "auto") == 0) {
        if (apd_device_has_cuda(&why) == APD_OK)
            return apd_device_open_cuda(config, place, out, text, err);
        apd_log(APD_LOG_INFO, "device: cpu", "cuda=\"%s\"", why.msg);
    }
    return open_cpu(config, place, out, text, err);
}

static int is_cuda(const struct apd_backend *be)
{
    return strcmp(be->name, "cuda") == 0;
}

enum apd_code apd_device_comm(const struct apd_config *config, struct apd_backend *be,
                              struct apd_comm *host, struct apd_comm **out, struct apd_err *err)
{
    if (is_cuda(be))
        return apd_device_comm_cuda(config, be, host, out, err);
    *out = host;
    return APD_OK;
}

int apd_device_scales_loss(const struct apd_config *config, const struct apd_backend *be)
{
    return is_cuda(be) && strcmp(config->cuda.precision, "fp16") == 0;
}

enum apd_code apd_device_settled(struct apd_backend *be, struct apd_err *err)
{
    return is_cuda(be) ? apd_device_settled_cuda(be, err) : APD_OK;
}
