#include "worker/tool_doctor.h"

#include "base/isa.h"
#include "worker/comm_mpi.h"
#include "worker/device.h"

#include <argp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    LEAST_MEMLOCK = 64 << 20,
    LEAST_SHM = 128 << 20,
    LEAST_NCCL = 21800,
    LEAST_FREE = 512 << 20
};

/* Sentences: `problems` of all kinds; can_train goes where one of them stops `device: auto`. */
struct doctor {
    json_t *facts, *problems;
    int has_cuda, can_train, gpus;
};

__attribute__((format(printf, 2, 3))) static void complain(struct doctor *doctor,
                                                           const char *format, ...)
{
    char text[640];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_array_append_new(doctor->problems, json_string(text));
}

/* ---------------------------------------------------------------- CUDA */

static json_t *cuda_version(int version)
{
    return version > 0 ? json_sprintf("%d.%d", version / 1000, version % 1000 / 10) : json_null();
}

static json_t *library_version(long version)
{
    return json_sprintf("%ld.%ld.%ld", version / 10000, version / 100 % 100, version % 100);
}

static void add_libraries(struct doctor *doctor, const struct apd_device_report *report)
{
    long cudnn[] = {(long)report->cuda.cudnn_built, (long)report->cuda.cudnn_found};
    long nccl[] = {report->nccl_built, report->nccl_found};

    json_object_set_new(doctor->facts, "cudnn",
                        json_pack("{so so}", "built", library_version(cudnn[0]), "found",
                                  library_version(cudnn[1])));
    json_object_set_new(
        doctor->facts, "nccl",
        json_pack("{so so}", "built", library_version(nccl[0]), "found", library_version(nccl[1])));
    if (doctor->gpus == 0)
        return;
    if (report->cuda.cudnn_problem[0] != '\0') {
        doctor->can_train = 0;
        complain(doctor, "%s", report->cuda.cudnn_problem);
    } else if (cudnn[1] < cudnn[0]) {
        complain(doctor, "the cuDNN found is older than the one this was built with");
    }
    if (nccl[0] / 10000 != nccl[1] / 10000 || nccl[1] < LEAST_NCCL)
        complain(doctor, "the NCCL found cannot be used, so only one GPU can: 2.18 or newer is "
                         "needed");
}

static void add_gpu(struct doctor *doctor, json_t *gpus, const struct apd_cuda_report *cuda, int i)
{
    const struct apd_cuda_gpu *gpu = &cuda->gpu[i];
    json_t *peers = json_array();

    for (int other = 0; other < cuda->gpus; other++)
        if (gpu->peers >> other & 1)
            json_array_append_new(peers, json_integer(other));
    json_array_append_new(
        gpus,
        json_pack("{ss so sI sI sb so ss}", "name", gpu->name, "compute_capability",
                  json_sprintf("%d.%d", gpu->major, gpu->minor), "memory_bytes",
                  (json_int_t)gpu->total_bytes, "free_bytes", (json_int_t)gpu->free_bytes, "usable",
                  gpu->problem[0] == '\0', "peers", peers, "problem", gpu->problem));
    if (gpu->problem[0] != '\0') {
        complain(doctor, "GPU %d, %s, cannot be used: %s", i, gpu->name, gpu->problem);
        doctor->can_train &= i > 0; /* a single worker takes GPU 0 */
    } else if (gpu->free_bytes < LEAST_FREE) {
        complain(doctor, "GPU %d has only %zu of %zu MiB of memory free", i, gpu->free_bytes >> 20,
                 gpu->total_bytes >> 20);
    }
}

static void add_cuda(struct doctor *doctor)
{
    static struct apd_device_report report;
    const struct apd_cuda_report *cuda = &report.cuda;
    json_t *gpus = json_array();
    struct apd_err err = {0};
    int built = apd_device_look(&report, &err) == APD_OK;
    const char *problem = built ? cuda->problem : err.msg;

    doctor->gpus = built ? cuda->gpus : 0;
    json_object_set_new(doctor->facts, "cuda",
                        json_pack("{sb so so}", "built", built, "driver",
                                  cuda_version(cuda->driver), "runtime",
                                  cuda_version(cuda->runtime)));
    json_object_set_new(doctor->facts, "gpus", gpus);
    if (built)
        add_libraries(doctor, &report);
    for (int i = 0; i < doctor->gpus; i++)
        add_gpu(doctor, gpus, cuda, i);
    doctor->has_cuda = problem[0] == '\0';
    if (!doctor->has_cuda)
        complain(doctor, "%s", problem);
}

/* ---------------------------------------------------------------- host */

static void add_cpu(struct doctor *doctor)
{
    const char *isa = apd_isa_supported(APD_ISA_AVX512) ? "avx512"
                      : apd_isa_supported(APD_ISA_AVX2) ? "avx2"
                                                        : "baseline";
    cpu_set_t set;
    int threads = 1;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        threads = CPU_COUNT(&set);
    json_object_set_new(doctor->facts, "cpu", json_pack("{ss si}", "isa", isa, "threads", threads));
}

/* Transports that go around the operating system pin memory, up to the limit. */
static void add_memlock(struct doctor *doctor)
{
    struct rlimit limit;
    int infiniband = access("/sys/class/infiniband", F_OK) == 0;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        json_object_set_new(doctor->facts, "memlock_bytes", json_null());
        return;
    }
    json_object_set_new(doctor->facts, "memlock_bytes", json_integer((json_int_t)limit.rlim_cur));
    if (limit.rlim_cur < LEAST_MEMLOCK && (infiniband || doctor->gpus > 1))
        complain(doctor,
                 "only %llu KiB of memory may be locked (ulimit -l): MPI and NCCL over InfiniBand "
                 "fail or are slow; set the limit to unlimited",
                 (unsigned long long)limit.rlim_cur >> 10);
}

static void add_shm(struct doctor *doctor)
{
    struct statvfs fs;
    unsigned long long size;

    if (statvfs("/dev/shm", &fs) != 0) {
        complain(doctor, "there is no /dev/shm: workers of one host cannot share memory");
        return;
    }
    size = (unsigned long long)fs.f_blocks * fs.f_frsize;
    json_object_set_new(doctor->facts, "shm_bytes", json_integer((json_int_t)size));
    if (size < LEAST_SHM)
        complain(doctor,
                 "/dev/shm has only %llu MiB: many workers on one host may not start (in a "
                 "container: --shm-size=1g)",
                 size >> 20);
}

static void conclude(struct doctor *doctor)
{
    const char *text = "training will run on the CPU", *device = "cpu";

    if (doctor->has_cuda) {
        device = doctor->can_train ? "cuda" : "none";
        text = !doctor->can_train ? "training with device: auto cannot run here; device: cpu can"
               : doctor->gpus > 1 ? "training will run on the GPUs, one worker each"
                                  : "training will run on the GPU, with one worker";
    }
    json_object_set_new(doctor->facts, "problems", doctor->problems);
    json_object_set_new(doctor->facts, "device", json_string(device));
    json_object_set_new(doctor->facts, "conclusion", json_string(text));
}

/* ---------------------------------------------------------------- command */

struct arguments {
    int json, test;
};

static const struct argp_option options[] = {
    {"doctor", 'd', NULL, OPTION_HIDDEN, NULL, 0},
    {"json", 'j', NULL, 0, "Print JSON", 0},
    {"selftest", 't', NULL, 0, "Also run some steps on the GPU and compare them with the CPU's", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *arguments = state->input;

    (void)arg;
    switch (key) {
    case 'j':
        arguments->json = 1;
        return 0;
    case 't':
        arguments->test = 1;
        return 0;
    case ARGP_KEY_ARG:
        argp_usage(state);
        return 0;
    default:
        return key == 'd' ? 0 : ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc = "What this host has for training, and what is wrong with it.",
};

static void add_tests(struct doctor *doctor)
{
    json_t *tests = json_array();
    struct apd_err err = {0};

    json_object_set_new(doctor->facts, "selftest", tests);
    if (!doctor->has_cuda || !doctor->can_train) {
        complain(doctor, "the self test was left out: it needs a GPU");
        return;
    }
    if (apd_doctor_test(tests, &err) == APD_OK)
        return;
    doctor->can_train = 0;
    complain(doctor, "%s", err.msg);
}

int apd_tool_doctor_main(int argc, char **argv)
{
    struct arguments arguments = {0};
    struct doctor doctor = {.facts = json_object(), .problems = json_array(), .can_train = 1};
    char mpi[128];
    int status;

    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
    json_object_set_new(doctor.facts, "version", json_string(APD_VERSION));
    add_cuda(&doctor);
    apd_mpi_library(mpi);
    json_object_set_new(doctor.facts, "mpi", json_string(mpi));
    add_cpu(&doctor);
    add_memlock(&doctor);
    add_shm(&doctor);
    if (arguments.test)
        add_tests(&doctor);
    conclude(&doctor);
    if (arguments.json)
        (void)json_dumpf(doctor.facts, stdout, JSON_INDENT(2));
    else
        apd_doctor_show(doctor.facts);
    (void)puts("");
    status = doctor.has_cuda && !doctor.can_train ? APD_EXIT_UNAVAILABLE : APD_EXIT_DONE;
    json_decref(doctor.facts);
    return fflush(stdout) != 0 || ferror(stdout) ? APD_EXIT_UNAVAILABLE : status;
}
