/* The NCCL communicator on the stand-ins: results, graphs, and what it does when something fails.
 */
#include "tests/emu/fake_cuda.h"
#include "tests/emu/ranks.h"
#include "tests/support/random.h"
#include "worker/comm_nccl.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WRONG = 40 }; /* exit status of a scenario whose result is wrong; codes are 100 + code */

/* What a scenario works with. */
struct setting {
    struct apd_comm *host, *comm;
    struct apd_backend *be;
    cudaStream_t stream;
    uint64_t seed;
    struct apd_err err;
};

static enum apd_code set_up(struct setting *s, struct apd_comm *host, double timeout_s)
{
    s->host = host;
    APD_TRY(fake_cuda_create(getenv("TEST_ONE_GPU") != NULL ? 0 : host->rank, &s->be, &s->err));
    s->stream = apd_cuda_stream(s->be);
    s->seed = strtoull(getenv("TEST_SEED"), NULL, 10);
    return apd_comm_nccl(s->be, host, getenv("TEST_ANY_ORDER") == NULL, timeout_s, &s->comm,
                         &s->err);
}

static int give_up(struct setting *s, enum apd_code rc)
{
    fprintf(stderr, "%s\n", s->err.msg);
    if (s->comm != NULL)
        s->comm->ops->destroy(s->comm);
    return rc == APD_OK ? 0 : 100 + (int)rc;
}

#define SCENARIO_GO(s, call)                                                                       \
    do {                                                                                           \
        enum apd_code rc_ = (call);                                                                \
        if (rc_ != APD_OK)                                                                         \
            return give_up((s), rc_);                                                              \
    } while (0)
#define SCENARIO_CUDA(s, call) SCENARIO_GO((s), apd_cuda_check((call), #call, &(s)->err))

static int finish(struct setting *s)
{
    fake_cuda_destroy(s->be);
    s->comm->ops->destroy(s->comm);
    return 0;
}

/* A value of a rank that no other has. */
static double value_of(uint64_t seed, int rank, size_t i)
{
    struct test_random random = {seed * 977 + (uint64_t)rank * 1000003 + i};

    return (double)(int64_t)(test_next(&random) >> 20) / (double)(1 << 20) - 8.4e6;
}

static void fill(void *out, size_t n, enum apd_sum_type type, uint64_t seed, int rank)
{
    for (size_t i = 0; i < n; i++)
        if (type == APD_SUM_F32)
            ((float *)out)[i] = (float)value_of(seed, rank, i);
        else
            ((double *)out)[i] = value_of(seed, rank, i);
}

/* In the order of the ranks. */
static int is_sum(const void *found, size_t n, enum apd_sum_type type, uint64_t seed, int size)
{
    for (size_t i = 0; i < n; i++) {
        float sum32 = 0;
        double sum64 = 0;

        for (int r = 0; r < size; r++) {
            sum32 = r == 0 ? (float)value_of(seed, r, i) : sum32 + (float)value_of(seed, r, i);
            sum64 = r == 0 ? value_of(seed, r, i) : sum64 + value_of(seed, r, i);
        }
        if (type == APD_SUM_F32 ? ((const float *)found)[i] != sum32
                                : ((const double *)found)[i] != sum64) {
            fprintf(stderr, "element %zu of %zu is not the sum\n", i, n);
            return 0;
        }
    }
    return 1;
}

/* ---------------------------------------------------------------- results */

/* Whether a rank is wrong, which all ranks learn together: one that left alone would be a lost
 * peer to another that is still at work. */
static enum apd_code any_wrong(struct setting *s, int own, int *any)
{
    double wrong = own;

    APD_TRY(apd_comm_sum(s->host, &wrong, 1, APD_SUM_F64, &s->err));
    *any = wrong > 0;
    return APD_OK;
}

/* Two sums of each size side by side, between copies that nothing but streams and events order. */
static int sums(struct apd_comm *host, void *arg)
{
    static const size_t sizes[] = {1, 3, 1000, 150001};
    struct setting s = {0};
    size_t most = sizes[3] * sizeof(double);
    char *in, *out, *device;

    (void)arg;
    SCENARIO_GO(&s, set_up(&s, host, 10));
    SCENARIO_CUDA(&s, cudaMallocHost((void **)&in, 2 * most));
    SCENARIO_CUDA(&s, cudaMallocHost((void **)&out, 2 * most));
    SCENARIO_CUDA(&s, cudaMalloc((void **)&device, 2 * most));
    for (int k = 0; k < 8; k++) {
        size_t n = sizes[k / 2];
        enum apd_sum_type type = k % 2 == 0 ? APD_SUM_F32 : APD_SUM_F64;
        int wrong;

        fill(in, n, type, s.seed, host->rank);
        fill(in + most, n, type, s.seed + 1, host->rank);
        memset(out, 0, 2 * most);
        SCENARIO_CUDA(&s, cudaMemcpyAsync(device, in, most, cudaMemcpyHostToDevice, s.stream));
        SCENARIO_GO(&s, s.comm->ops->sum_start(s.comm, device, n, type, &s.err));
        SCENARIO_CUDA(
            &s, cudaMemcpyAsync(device + most, in + most, most, cudaMemcpyHostToDevice, s.stream));
        SCENARIO_GO(&s, s.comm->ops->sum_start(s.comm, device + most, n, type, &s.err));
        SCENARIO_GO(&s, s.comm->ops->sum_wait(s.comm, &s.err));
        SCENARIO_CUDA(&s, cudaMemcpyAsync(out, device, 2 * most, cudaMemcpyDeviceToHost, s.stream));
        SCENARIO_GO(&s, fake_cuda_wait(s.be, 10, &s.err));
        wrong = !is_sum(out, n, type, s.seed, host->size) ||
                !is_sum(out + most, n, type, s.seed + 1, host->size);
        SCENARIO_GO(&s, any_wrong(&s, wrong, &wrong));
        if (wrong)
            return WRONG;
    }
    return finish(&s);
}

/* Rows from `from` to `to` in a round: the same on all ranks, a third of the time none. */
static int rows_between(uint64_t seed, int round, int from, int to)
{
    struct test_random random = {seed + (uint64_t)(round * 10000 + from * 100 + to)};

    return test_below(&random, 3) == 0 ? 0 : (int)test_below(&random, 40);
}

static unsigned char byte_of(int round, int from, int to, size_t i)
{
    return (unsigned char)(i * 7 + (size_t)(round * 31 + from * 5 + to * 3));
}

static int rows(struct apd_comm *host, void *arg)
{
    enum { MOST = 1 << 20 };
    struct setting s = {0};
    unsigned char *in, *out, *from, *to;

    (void)arg;
    SCENARIO_GO(&s, set_up(&s, host, 10));
    SCENARIO_CUDA(&s, cudaMallocHost((void **)&in, MOST));
    SCENARIO_CUDA(&s, cudaMallocHost((void **)&out, MOST));
    SCENARIO_CUDA(&s, cudaMalloc((void **)&from, MOST));
    SCENARIO_CUDA(&s, cudaMalloc((void **)&to, MOST));
    for (int round = 0; round < 12; round++) {
        struct test_random random = {s.seed + (uint64_t)round};
        size_t row = round == 0 ? 1 : 1 + test_below(&random, 5000), at = 0, wrong = 0;
        int send[RANKS_MAX], recv[RANKS_MAX];

        for (int r = 0; r < host->size; r++) {
            send[r] = round == 1 ? 0 : rows_between(s.seed, round, host->rank, r);
            recv[r] = round == 1 ? 0 : rows_between(s.seed, round, r, host->rank);
            for (size_t i = 0; i < row * (size_t)send[r]; i++)
                in[at++] = byte_of(round, host->rank, r, i);
        }
        SCENARIO_CUDA(&s, cudaMemcpyAsync(from, in, MOST, cudaMemcpyHostToDevice, s.stream));
        SCENARIO_GO(&s, s.comm->ops->exchange_rows(s.comm, row, from, send, to, recv, &s.err));
        SCENARIO_CUDA(&s, cudaMemcpyAsync(out, to, MOST, cudaMemcpyDeviceToHost, s.stream));
        SCENARIO_GO(&s, fake_cuda_wait(s.be, 10, &s.err));
        at = 0;
        for (int r = 0; r < host->size; r++)
            for (size_t i = 0; i < row * (size_t)recv[r]; i++)
                wrong += out[at++] != byte_of(round, r, host->rank, i);
        if (wrong > 0) {
            fprintf(stderr, "round %d: %zu bytes are wrong\n", round, wrong);
            return WRONG;
        }
    }
    return finish(&s);
}

/* copy in, sum, exchange of the sum's first rows, copy out: as a graph, launched three times. */
static int graph(struct apd_comm *host, void *arg)
{
    enum { N = 3000, ROW = 100 * sizeof(float) };
    struct setting s = {0};
    float *in, *out, *device, *got;
    int one[RANKS_MAX];
    cudaGraph_t captured;
    cudaGraphExec_t exec;

    (void)arg;
    SCENARIO_GO(&s, set_up(&s, host, 10));
    SCENARIO_CUDA(&s, cudaMallocHost((void **)&in, N * sizeof *in));
    SCENARIO_CUDA(&s, cudaMallocHost((void **)&out, 2 * N * sizeof *out));
    SCENARIO_CUDA(&s, cudaMalloc((void **)&device, 2 * N * sizeof *device));
    got = device + N;
    for (int r = 0; r < host->size; r++)
        one[r] = 1;
    SCENARIO_CUDA(&s, cudaStreamBeginCapture(s.stream, cudaStreamCaptureModeThreadLocal));
    SCENARIO_CUDA(&s,
                  cudaMemcpyAsync(device, in, N * sizeof *in, cudaMemcpyHostToDevice, s.stream));
    SCENARIO_GO(&s, s.comm->ops->sum_start(s.comm, device, N, APD_SUM_F32, &s.err));
    SCENARIO_GO(&s, s.comm->ops->sum_wait(s.comm, &s.err));
    SCENARIO_GO(&s, s.comm->ops->exchange_rows(s.comm, ROW, device, one, got, one, &s.err));
    SCENARIO_CUDA(
        &s, cudaMemcpyAsync(out, device, 2 * N * sizeof *out, cudaMemcpyDeviceToHost, s.stream));
    SCENARIO_CUDA(&s, cudaStreamEndCapture(s.stream, &captured));
    SCENARIO_CUDA(&s,
                  cudaGraphInstantiate(&exec, captured, cudaGraphInstantiateFlagUseNodePriority));
    for (uint64_t k = 0; k < 3; k++) {
        fill(in, N, APD_SUM_F32, s.seed + k, host->rank);
        memset(out, 0, 2 * N * sizeof *out);
        SCENARIO_CUDA(&s, cudaGraphLaunch(exec, s.stream));
        SCENARIO_GO(&s, fake_cuda_wait(s.be, 10, &s.err));
        if (!is_sum(out, N, APD_SUM_F32, s.seed + k, host->size))
            return WRONG;
        for (int r = 0; r < host->size; r++)
            if (memcmp((char *)(out + N) + ROW * r, (char *)out + ROW * host->rank, ROW) != 0)
                return WRONG;
    }
    SCENARIO_CUDA(&s, cudaGraphExecDestroy(exec));
    SCENARIO_CUDA(&s, cudaGraphDestroy(captured));
    return finish(&s);
}

/* A wait without a sum must not tie our stream to a capture that has no part in it. */
static int empty_capture(struct apd_comm *host, void *arg)
{
    struct setting s = {0};
    cudaGraph_t captured;

    (void)arg;
    SCENARIO_GO(&s, set_up(&s, host, 10));
    SCENARIO_CUDA(&s, cudaStreamBeginCapture(s.stream, cudaStreamCaptureModeThreadLocal));
    SCENARIO_GO(&s, s.comm->ops->sum_wait(s.comm, &s.err));
    SCENARIO_CUDA(&s, cudaStreamEndCapture(s.stream, &captured));
    SCENARIO_CUDA(&s, cudaGraphDestroy(captured));
    return finish(&s);
}

static void run_well(int n, ranks_scenario *scenario)
{
    for (int seed = 1; seed <= 3; seed++) {
        char standin[32], test[32];
        const char *settings[] = {standin, test, "STANDIN_DEVICES=8", NULL};
        struct ranks_end end;

        snprintf(standin, sizeof standin, "STANDIN_SEED=%d", seed);
        snprintf(test, sizeof test, "TEST_SEED=%d", seed * 100);
        end = ranks_wait(ranks_start(n, scenario, NULL, settings));
        for (int r = 0; r < n; r++) {
            if (end.status[r] != 0)
                fprintf(stderr, "seed %d, rank %d of %d: status %d: %s\n", seed, r, n,
                        end.status[r], end.text[r]);
            assert_int_equal(end.status[r], 0);
        }
    }
}

static void sums_are_in_rank_order(void **state)
{
    (void)state;
    run_well(2, sums);
    run_well(3, sums);
    run_well(4, sums);
}

static void rows_arrive(void **state)
{
    (void)state;
    run_well(1, rows);
    run_well(2, rows);
    run_well(4, rows);
}

static void graphs_hold_operations(void **state)
{
    (void)state;
    run_well(2, graph);
    run_well(4, graph);
    run_well(2, empty_capture);
}

struct algo_case {
    const char *own;      /* of rank 0; NULL: not set */
    int any_order;        /* may be the sum's */
    const char *expected; /* on all ranks; NULL: not set */
};

/* Rank 1 has no setting, further ones another. */
static int differing_settings(struct apd_comm *host, void *arg)
{
    const struct algo_case *c = arg;
    const char *set = host->rank == 0 ? c->own : host->rank == 1 ? NULL : "CollnetDirect", *found;
    struct setting s = {0};
    int wrong;

    if (set == NULL ? unsetenv("NCCL_ALGO") : setenv("NCCL_ALGO", set, 1))
        return WRONG;
    if (c->any_order)
        putenv("TEST_ANY_ORDER=1");
    SCENARIO_GO(&s, set_up(&s, host, 10));
    found = getenv("NCCL_ALGO");
    if (strcmp(getenv("NCCL_MAX_P2P_NCHANNELS"), "8") != 0)
        return WRONG;
    wrong = found == NULL || c->expected == NULL ? found != c->expected
                                                 : strcmp(found, c->expected) != 0;
    if (wrong)
        fprintf(stderr, "NCCL_ALGO is %s\n", found != NULL ? found : "not set");
    SCENARIO_GO(&s, any_wrong(&s, wrong, &wrong));
    return wrong ? WRONG : finish(&s);
}

static void all_have_the_algorithms_of_rank_0(void **state)
{
    struct algo_case cases[] = {
        {NULL, 0, "Ring,Tree"}, {"Tree", 0, "Tree"}, {NULL, 1, NULL}, {"NVLS", 1, "NVLS"}};
    const char *settings[] = {"STANDIN_SEED=5", "TEST_SEED=1", "STANDIN_DEVICES=8", NULL};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ranks_end end = ranks_wait(ranks_start(3, differing_settings, &cases[i], settings));

        for (int r = 0; r < 3; r++) {
            if (end.status[r] != 0)
                fprintf(stderr, "case %zu, rank %d: %s\n", i, r, end.text[r]);
            assert_int_equal(end.status[r], 0);
        }
    }
}

static void one_worker_sums_nothing(void **state)
{
    (void)state;
    run_well(1, sums);
    run_well(1, graph);
}

/* ---------------------------------------------------------------- failures */

static struct ranks_end run_with(int n, ranks_scenario *scenario, const char *a, const char *b)
{
    const char *settings[] = {"STANDIN_SEED=5", "TEST_SEED=1", "STANDIN_DEVICES=8", a, b, NULL};

    return ranks_wait(ranks_start(n, scenario, NULL, settings));
}

static void shared_gpu_is_told(void **state)
{
    struct ranks_end end = run_with(2, sums, "TEST_ONE_GPU=1", NULL);

    (void)state;
    for (int r = 0; r < 2; r++) {
        assert_int_equal(end.status[r], 100 + APD_DEVICE);
        assert_non_null(strstr(end.text[r], "two workers have the same GPU"));
    }
}

static void old_version_is_refused(void **state)
{
    struct ranks_end end = run_with(2, sums, "STANDIN_NCCL_VERSION=21705", NULL);

    (void)state;
    for (int r = 0; r < 2; r++) {
        assert_int_equal(end.status[r], 100 + APD_DEVICE);
        assert_non_null(strstr(end.text[r], "NCCL 2.17.5 was found where 2.18 or newer"));
    }
    end = run_with(2, sums, "STANDIN_NCCL_VERSION=2804", NULL);
    assert_non_null(strstr(end.text[0], "NCCL 2.8.4 was found"));
    end = run_with(2, sums, "STANDIN_NCCL_VERSION=30000", NULL);
    assert_non_null(strstr(end.text[0], "NCCL 3.0.0 was found"));
}

static int old_on_rank_one(struct apd_comm *host, void *arg)
{
    if (host->rank == 1)
        setenv("STANDIN_NCCL_VERSION", "21705", 1);
    return sums(host, arg);
}

static void one_that_cannot_start_stops_all(void **state)
{
    struct ranks_end end = run_with(3, old_on_rank_one, NULL, NULL);

    (void)state;
    assert_int_equal(end.status[0], 100 + APD_PEER);
    assert_int_equal(end.status[1], 100 + APD_DEVICE);
    assert_int_equal(end.status[2], 100 + APD_PEER);
    assert_non_null(strstr(end.text[2], "1 other workers cannot use NCCL"));
}

static void missing_sum_is_seen(void **state)
{
    struct ranks_end end = run_with(2, sums, "STANDIN_NCCL_SKIP=*:3", NULL);

    (void)state;
    assert_int_equal(end.status[0], WRONG);
    assert_int_equal(end.status[1], WRONG);
    /* The first is that of the start. */
    end = run_with(2, sums, "STANDIN_NCCL_SKIP=1:1", NULL);
    assert_int_equal(end.status[1], 100 + APD_DEVICE);
    assert_non_null(strstr(end.text[1], "sum of ones over all workers is 1"));
}

static int other_count_on_rank_one(struct apd_comm *host, void *arg)
{
    struct setting s = {0};
    float *device;

    (void)arg;
    SCENARIO_GO(&s, set_up(&s, host, 10));
    SCENARIO_CUDA(&s, cudaMalloc((void **)&device, 64));
    SCENARIO_CUDA(&s, cudaMemset(device, 0, 64));
    SCENARIO_GO(
        &s, s.comm->ops->sum_start(s.comm, device, 4 + (size_t)host->rank, APD_SUM_F32, &s.err));
    SCENARIO_GO(&s, s.comm->ops->sum_wait(s.comm, &s.err));
    SCENARIO_GO(&s, fake_cuda_wait(s.be, 5, &s.err));
    return 0;
}

static int other_order_on_rank_one(struct apd_comm *host, void *arg)
{
    struct setting s = {0};
    int rows_each[RANKS_MAX] = {1, 1};
    char *device;

    (void)arg;
    SCENARIO_GO(&s, set_up(&s, host, 10));
    SCENARIO_CUDA(&s, cudaMalloc((void **)&device, 64));
    SCENARIO_CUDA(&s, cudaMemset(device, 0, 64));
    for (int k = 0; k < 2; k++)
        if (k == host->rank) {
            SCENARIO_GO(&s, s.comm->ops->sum_start(s.comm, device, 4, APD_SUM_F32, &s.err));
            SCENARIO_GO(&s, s.comm->ops->sum_wait(s.comm, &s.err));
        } else {
            SCENARIO_GO(&s, s.comm->ops->exchange_rows(s.comm, 8, device + 16, rows_each,
                                                       device + 32, rows_each, &s.err));
        }
    SCENARIO_GO(&s, fake_cuda_wait(s.be, 5, &s.err));
    return 0;
}

static void different_calls_are_found(void **state)
{
    struct ranks_end end = run_with(2, other_count_on_rank_one, NULL, NULL);

    (void)state;
    assert_true(end.status[0] == -6 || end.status[1] == -6);
    assert_non_null(strstr(end.text[end.status[0] == -6 ? 0 : 1], "ncclAllReduce of 5"));
    end = run_with(2, other_order_on_rank_one, NULL, NULL);
    assert_true(end.status[0] == -6 || end.status[1] == -6);
    assert_non_null(strstr(end.text[end.status[0] == -6 ? 0 : 1], "exchanges rows with us"));
}

/* Steps of sums and rows until something fails, then the end that the worker has. Deadlines are
 * TEST_PATIENCE seconds; the time it takes in all is limited by ranks_wait(). */
static int steps(struct apd_comm *host, void *arg)
{
    enum { N = 5000, STEPS = 6 };
    struct setting s = {0};
    double patience_s = strtod(getenv("TEST_PATIENCE"), NULL);
    int rows_each[RANKS_MAX];
    char *device;

    (void)arg;
    SCENARIO_GO(&s, set_up(&s, host, patience_s));
    SCENARIO_CUDA(&s, cudaMalloc((void **)&device, N * 4 + 20000));
    SCENARIO_CUDA(&s, cudaMemset(device, 0, N * 4 + 20000));
    for (int r = 0; r < host->size; r++)
        rows_each[r] = 10;
    for (int k = 0; k < STEPS; k++) {
        SCENARIO_GO(&s, s.comm->ops->sum_start(s.comm, device, N, APD_SUM_F32, &s.err));
        SCENARIO_GO(&s, s.comm->ops->sum_wait(s.comm, &s.err));
        SCENARIO_GO(&s, s.comm->ops->exchange_rows(s.comm, 100, device + N * 4, rows_each,
                                                   device + N * 4 + 10000, rows_each, &s.err));
        SCENARIO_GO(&s, fake_cuda_wait(s.be, patience_s, &s.err));
    }
    return finish(&s);
}

struct injection {
    const char *kind;
    int ranks, rank, number;
    char fail[64], seed[32];
    struct ranks_run *run;
};

/* A hang takes its time, so it is the rare one. */
enum { KINDS = 5, HANG = 4 };
static const char *const kinds[KINDS] = {"error", "system", "die", "refuse", "hang"};

static void inject(struct injection *i, struct test_random *random)
{
    uint64_t kind = test_below(random, 9) == 0 ? HANG : test_below(random, HANG);
    /* Short only where a rank may end because the time is up. */
    const char *patience = kind == HANG ? "TEST_PATIENCE=0.5" : "TEST_PATIENCE=10";
    const char *settings[] = {i->fail, i->seed, "TEST_SEED=1", "STANDIN_DEVICES=8", patience, NULL};

    i->kind = kinds[kind];
    i->ranks = 2 + (int)test_below(random, 2);
    i->rank = (int)test_below(random, (uint64_t)i->ranks);
    i->number = 1 + (int)test_below(random, 13); /* one at the start, two a step */
    snprintf(i->fail, sizeof i->fail, "STANDIN_NCCL_FAIL=%d:%d:%s", i->rank, i->number, i->kind);
    snprintf(i->seed, sizeof i->seed, "STANDIN_SEED=%d", (int)test_below(random, 1000));
    i->run = ranks_start(i->ranks, steps, NULL, settings);
}

/* Every rank has ended by itself: the one that failed as its failure says, the others because of a
 * peer, or because the time is up. */
static void check_injection(const struct injection *i, const struct ranks_end *end)
{
    int hangs = strcmp(i->kind, "hang") == 0;

    for (int r = 0; r < i->ranks; r++) {
        int status = end->status[r];
        int ok = status == 100 + APD_PEER || (hangs && status == 100 + APD_TIMEOUT);

        if (r == i->rank && strcmp(i->kind, "die") == 0)
            ok = status == -9;
        if (!ok)
            fprintf(stderr, "%s %s: rank %d of %d: status %d: %s\n", i->fail, i->seed, r, i->ranks,
                    status, end->text[r]);
        assert_true(ok);
        assert_true(status == -9 || end->text[r][0] != '\0');
    }
}

static void failures_end_every_rank(void **state)
{
    enum { RUNS = 200, AT_ONCE = 10 };
    struct test_random random = test_random_start();
    struct injection injection[AT_ONCE];
    int seen[KINDS] = {0};

    (void)state;
    for (int done = 0; done < RUNS; done += AT_ONCE) {
        for (int i = 0; i < AT_ONCE; i++)
            inject(&injection[i], &random);
        for (int i = 0; i < AT_ONCE; i++) {
            struct ranks_end end = ranks_wait(injection[i].run);

            check_injection(&injection[i], &end);
            for (int k = 0; k < KINDS; k++)
                seen[k] += injection[i].kind == kinds[k];
        }
    }
    for (int k = 0; k < KINDS; k++)
        assert_true(seen[k] > 0);
}

static enum apd_code one_step(struct setting *s, float *device)
{
    APD_TRY(s->comm->ops->sum_start(s->comm, device, 4, APD_SUM_F32, &s->err));
    APD_TRY(s->comm->ops->sum_wait(s->comm, &s->err));
    return fake_cuda_wait(s->be, 5, &s->err);
}

/* As the worker does: the first cause is told, then all is ended. */
static int aborts(struct apd_comm *host, void *arg)
{
    struct setting s = {0};
    double started = 1;
    float *device;

    (void)arg;
    SCENARIO_GO(&s, set_up(&s, host, 5));
    SCENARIO_CUDA(&s, cudaMalloc((void **)&device, 64));
    SCENARIO_CUDA(&s, cudaMemset(device, 0, 64));
    SCENARIO_GO(&s, apd_comm_sum(host, &started, 1, APD_SUM_F64, &s.err));
    if (one_step(&s, device) != APD_PEER)
        return WRONG;
    s.comm->ops->abort(s.comm, 75);
    return WRONG;
}

static void abort_ends_the_process(void **state)
{
    struct ranks_end end = run_with(2, aborts, "STANDIN_NCCL_FAIL=0:2:error", NULL);

    (void)state;
    assert_int_equal(end.status[0], 75);
    assert_int_equal(end.status[1], 75);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_in_rank_order),
        cmocka_unit_test(rows_arrive),
        cmocka_unit_test(graphs_hold_operations),
        cmocka_unit_test(one_worker_sums_nothing),
        cmocka_unit_test(all_have_the_algorithms_of_rank_0),
        cmocka_unit_test(shared_gpu_is_told),
        cmocka_unit_test(old_version_is_refused),
        cmocka_unit_test(one_that_cannot_start_stops_all),
        cmocka_unit_test(missing_sum_is_seen),
        cmocka_unit_test(different_calls_are_found),
        cmocka_unit_test(abort_ends_the_process),
        cmocka_unit_test(failures_end_every_rank),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
