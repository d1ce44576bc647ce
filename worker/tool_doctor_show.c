/* The doctor's facts as people read them. */
#include "worker/tool_doctor.h"

#include <stdio.h>

static const char *text_of(const json_t *object, const char *name, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text != NULL ? text : otherwise;
}

static double gib_of(const json_t *object, const char *name)
{
    return (double)json_integer_value(json_object_get(object, name)) / (1 << 30);
}

static void show_library(const json_t *facts, const char *name, const char *label)
{
    const json_t *library = json_object_get(facts, name);

    printf("  %-14s %s, built with %s\n", label, text_of(library, "found", "none"),
           text_of(library, "built", "none"));
}

static void show_gpus(const json_t *gpus)
{
    for (size_t i = 0; i < json_array_size(gpus); i++) {
        const json_t *gpu = json_array_get(gpus, i);

        printf("  GPU %-10zu %s, compute capability %s, %.1f of %.1f GiB free%s\n", i,
               text_of(gpu, "name", ""), text_of(gpu, "compute_capability", ""),
               gib_of(gpu, "free_bytes"), gib_of(gpu, "memory_bytes"),
               json_is_true(json_object_get(gpu, "usable")) ? "" : ", cannot be used");
    }
}

static int is_peer(const json_t *gpu, size_t other)
{
    const json_t *peers = json_object_get(gpu, "peers");

    for (size_t i = 0; i < json_array_size(peers); i++)
        if (json_integer_value(json_array_get(peers, i)) == (json_int_t)other)
            return 1;
    return 0;
}

/* Row: whose memory; column: who reaches it. */
static void show_peers(const json_t *gpus)
{
    size_t n = json_array_size(gpus);

    for (size_t i = 0; i < n && n > 1; i++) {
        printf("  %-14s %zu:", i == 0 ? "peer access" : "", i);
        for (size_t j = 0; j < n; j++)
            printf(" %s", i == j ? "-" : is_peer(json_array_get(gpus, i), j) ? "yes" : "no");
        putchar('\n');
    }
}

static void show_bytes(const json_t *facts, const char *name, const char *label)
{
    const json_t *bytes = json_object_get(facts, name);

    if (json_is_integer(bytes))
        printf("  %-14s %lld MiB\n", label, (long long)json_integer_value(bytes) >> 20);
    else
        printf("  %-14s %s\n", label, json_is_null(bytes) ? "no limit" : "none");
}

void apd_doctor_show(const json_t *facts)
{
    const json_t *cuda = json_object_get(facts, "cuda"), *cpu = json_object_get(facts, "cpu");
    const json_t *gpus = json_object_get(facts, "gpus"), *list = json_object_get(facts, "selftest");

    printf("advprop %s\n", text_of(facts, "version", ""));
    if (json_is_true(json_object_get(cuda, "built"))) {
        printf("  %-14s %s\n", "driver's CUDA", text_of(cuda, "driver", "no driver"));
        printf("  %-14s %s\n", "runtime's CUDA", text_of(cuda, "runtime", "none"));
        show_library(facts, "cudnn", "cuDNN");
        show_library(facts, "nccl", "NCCL");
    }
    show_gpus(gpus);
    show_peers(gpus);
    printf("  %-14s %s\n", "MPI", text_of(facts, "mpi", ""));
    printf("  %-14s %s, %lld threads\n", "CPU", text_of(cpu, "isa", ""),
           (long long)json_integer_value(json_object_get(cpu, "threads")));
    show_bytes(facts, "memlock_bytes", "locked memory");
    show_bytes(facts, "shm_bytes", "/dev/shm");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *test = json_array_get(list, i);

        printf("  %-14s %s: %s\n", text_of(test, "name", ""),
               json_is_true(json_object_get(test, "pass")) ? "pass" : "FAIL",
               text_of(test, "text", ""));
    }
    putchar('\n');
    list = json_object_get(facts, "problems");
    for (size_t i = 0; i < json_array_size(list); i++)
        puts(json_string_value(json_array_get(list, i)));
    fputs(text_of(facts, "conclusion", ""), stdout);
}
