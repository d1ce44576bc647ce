/* The coordinator's logic in a simulated cluster: each situation by itself, then hundreds of random
 * schedules of faults, drains, visitors and restarts. */
#include "tests/sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SCHEDULES 600

#define DONE      ADVPROP__V1__RUN_STATE__RUN_STATE_DONE
#define FAILED    ADVPROP__V1__RUN_STATE__RUN_STATE_FAILED
#define ASK(kind) ADVPROP__V1__CLIENT_REQUEST__KIND_##kind

static void undisturbed_run_ends_done(void **state)
{
    struct sim sim;

    (void)state;
    sim_init(&sim, 1, 3, 40); /* 40 steps of 80 over 600 samples: 5 epochs and a bit */
    sim_run(&sim);
    assert_int_equal(sim.state, DONE);
    assert_int_equal(sim.exit_status, 0);
    assert_int_equal(sim.committed_step, 40);
    assert_int_equal(sim.receipts_matched, 5);
    assert_int_equal(sim.receipts_wrong, 0);
    assert_true(sim.removed > 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(sim.worker[i].epochs_assigned, 40 * 80 / 600 + 2);
    sim_fini(&sim);
}

static void last_receipt_is_waited_for(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct sim sim;

        sim_init(&sim, seed, 2, 15); /* exactly 2 epochs */
        sim_run(&sim);
        assert_int_equal(sim.state, DONE);
        assert_int_equal(sim.receipts_matched, 2);
        sim_fini(&sim);
    }
}

static void resumed_run_starts_at_the_checkpoint(void **state)
{
    struct sim sim;

    (void)state;
    sim_init_resumed(&sim, 2, 2, 40, 21);
    sim_run(&sim);
    assert_int_equal(sim.state, DONE);
    assert_int_equal(sim.generation, 5);
    assert_int_equal(sim.committed_step, 40);
    sim_fini(&sim);
}

static void lost_worker_fails_the_run_in_every_phase(void **state)
{
    (void)state;
    for (uint64_t at_ms = 1000; at_ms < 6000; at_ms += 37) {
        struct sim sim;
        uint32_t rank = 1 + (uint32_t)(at_ms % 3);

        sim_init(&sim, at_ms, 3, 30);
        sim_run_until(&sim, at_ms);
        if (sim.finishes == 0 && sim.worker[rank - 1].conn != 0) {
            char who[16];

            sim_kill(&sim, rank);
            sim_run(&sim);
            (void)snprintf(who, sizeof who, "rank %u", rank);
            assert_int_equal(sim.state, FAILED);
            assert_int_equal(sim.exit_status, APD_EXIT_RESTART);
            assert_non_null(strstr(sim.first_cause, who));
            assert_non_null(strstr(sim.first_cause, "lost in phase"));
        }
        sim_fini(&sim);
    }
}

static void failed_run_ends_within_the_grace_time(void **state)
{
    struct sim sim;
    uint64_t at;

    (void)state;
    sim_init(&sim, 3, 2, 100);
    sim_run_to_step(&sim, 10);
    sim.worker[0].silent = 1; /* it will not obey STOP */
    at = sim.now_ms;
    sim_kill(&sim, 2);
    sim_run(&sim);
    assert_in_range(sim.now_ms - at, 2000, 2100);
    assert_non_null(strstr(sim.first_cause, "rank 2"));
    sim_fini(&sim);
}

static void silent_worker_fails_the_run(void **state)
{
    struct sim sim;
    uint64_t at;

    (void)state;
    sim_init(&sim, 4, 3, 100);
    sim_run_to_step(&sim, 12);
    at = sim.now_ms;
    sim_silence(&sim, 2);
    sim_run(&sim);
    assert_int_equal(sim.state, FAILED);
    assert_int_equal(sim.exit_status, APD_EXIT_RESTART);
    assert_non_null(strstr(sim.first_cause, "rank 2 on host, pid 1002, is silent for"));
    assert_in_range(sim.now_ms - at, 9000, 13000);
    sim_fini(&sim);
}

static void missing_worker_fails_the_run_at_the_join_deadline(void **state)
{
    struct sim sim;

    (void)state;
    sim_init(&sim, 5, 3, 100);
    sim.worker[1].join_ms = UINT64_MAX;
    sim_run(&sim);
    assert_int_equal(sim.state, FAILED);
    assert_int_equal(sim.exit_status, APD_EXIT_RESTART);
    assert_non_null(strstr(sim.first_cause, "2 of 3 workers joined within 30 s; missing: rank 2"));
    sim_fini(&sim);
}

static void failure_of_a_worker_gives_its_exit_status(void **state)
{
    struct sim sim;

    (void)state;
    sim_init(&sim, 6, 2, 100);
    sim_run_to_step(&sim, 5);
    sim_fail(&sim, 2, APD_EXIT_DATA);
    sim_kill(&sim, 1); /* its peer dies of it: not the first cause */
    sim_run(&sim);
    assert_int_equal(sim.exit_status, APD_EXIT_DATA);
    assert_non_null(strstr(sim.first_cause, "rank 2"));
    assert_non_null(strstr(sim.first_cause, "in phase train_pass"));
    assert_non_null(strstr(sim.first_cause, "a value is not finite"));
    sim_fini(&sim);
}

/* Everything the workers must agree on, each wrong once. */
static void mismatching_joiner_is_refused_by_name(void **state)
{
    static uint64_t other_shards[] = {100, 100, 100, 100, 99, 101};
    static const char *const says[] = {
        "layout of the parameters: expected conv1.weight 8x1x3x3 (of rank 1), found conv1.weight 9",
        "configuration digest: expected config (the coordinator's), found other",
        "data digest: expected data (of rank 1), found other",
        "its shards have 600 samples, its data set 601",
        "classes: expected 10 (of rank 1), found 11",
        "samples of a shard: expected 100 (of rank 1), found 99",
        "plan version",
        "expected 2 workers, it sees 3",
        "expected a rank of 1 to 2",
    };

    (void)state;
    for (size_t i = 0; i < sizeof says / sizeof *says; i++) {
        struct sim sim;
        Advprop__V1__Join join;

        sim_init(&sim, 7, 2, 100);
        sim.worker[1].join_ms = UINT64_MAX;
        sim_run_until(&sim, 3000);
        sim_fill_join(&sim, 2, &join);
        if (i == 0)
            join.layout = "conv1.weight 9";
        else if (i == 1)
            join.config_digest = "other";
        else if (i == 2)
            join.data_digest = "other";
        else if (i == 3)
            join.samples = 601;
        else if (i == 4)
            join.classes = 11;
        else if (i == 5)
            join.shard_samples = other_shards;
        else if (i == 6)
            join.plan_version++;
        else if (i == 7)
            join.workers = 3;
        else
            join.rank = 9;
        sim_join(&sim, &join, NULL);
        sim_run(&sim);
        assert_int_equal(sim.state, FAILED);
        assert_int_equal(sim.exit_status, APD_EXIT_CONFIG);
        assert_int_equal(sim.joins_refused, 1);
        if (strstr(sim.first_cause, says[i]) == NULL)
            fail_msg("case %zu: %s", i, sim.first_cause);
        sim_fini(&sim);
    }
}

static void duplicate_rank_and_wrong_secret_do_not_disturb(void **state)
{
    static const uint8_t wrong[APD_SECRET_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 8};
    struct sim sim;
    Advprop__V1__Join join;

    (void)state;
    sim_init(&sim, 8, 2, 20);
    sim.worker[1].join_ms = 3500;
    sim_run_until(&sim, 3000);
    sim_fill_join(&sim, 1, &join); /* is there already */
    sim_join(&sim, &join, NULL);
    sim_fill_join(&sim, 2, &join);
    sim_join(&sim, &join, wrong);
    join.secret.len = 3;
    sim_join(&sim, &join, wrong);
    assert_int_equal(sim.joins_refused, 3);
    sim_run_to_step(&sim, 5);
    sim_fill_join(&sim, 2, &join); /* while training */
    sim_join(&sim, &join, NULL);
    assert_int_equal(sim.joins_refused, 4);
    sim_run(&sim);
    assert_int_equal(sim.state, DONE);
    sim_fini(&sim);
}

static void stranger_without_join_is_refused(void **state)
{
    struct sim sim;
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Leaving leaving = ADVPROP__V1__LEAVING__INIT;

    (void)state;
    sim_init(&sim, 9, 2, 20);
    sim_run_to_step(&sim, 3);
    message.generation = sim.generation;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_LEAVING;
    message.leaving = &leaving;
    apd_coord_worker_message(sim.coord, ++sim.next_conn, &message);
    assert_int_equal(sim.joins_refused, 1);
    sim_run(&sim);
    assert_int_equal(sim.state, DONE);
    sim_fini(&sim);
}

static void commit_of_an_older_generation_is_refused(void **state)
{
    struct sim sim;

    (void)state;
    sim_init_resumed(&sim, 10, 2, 40, 14);
    sim_run_to_step(&sim, 16);
    sim_written(&sim, 1, sim.generation - 1, 16, "interval");
    assert_int_equal(sim.refused_commits, 1);
    sim_run(&sim);
    assert_int_equal(sim.state, DONE);
    assert_int_equal(sim.refused_commits, 1);
    sim_fini(&sim);
}

static void commit_from_another_rank_does_not_count(void **state)
{
    struct sim sim;

    (void)state;
    sim_init(&sim, 11, 2, 20);
    sim_run_to_step(&sim, 3);
    sim_written(&sim, 2, sim.generation, 3, "interval");
    assert_string_equal(sim.last_event, "bad-report");
    sim_run(&sim);
    assert_int_equal(sim.state, DONE);
    sim_fini(&sim);
}

static void report_that_is_not_newer_does_not_count(void **state)
{
    static const uint64_t steps[] = {10, 9, 0, 41, UINT64_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct sim sim;

        sim_init(&sim, 17, 2, 40);
        sim_run_to_step(&sim, 10);
        sim_report_step(&sim, steps[i]);
        assert_string_equal(sim.last_event, "bad-report");
        assert_int_equal(apd_coord_status(sim.coord)->step, 10);
        sim_run(&sim);
        assert_int_equal(sim.state, DONE);
        sim_fini(&sim);
    }
}

static void worker_that_cannot_start_is_the_first_cause(void **state)
{
    struct sim sim;
    Advprop__V1__Join join;

    (void)state;
    sim_init(&sim, 18, 2, 40);
    sim.worker[1].join_ms = UINT64_MAX;
    sim_run_until(&sim, 3000);
    sim_fill_join(&sim, 2, &join);
    join.failure = "the data set is damaged";
    join.exit_status = APD_EXIT_DATA;
    sim_join(&sim, &join, NULL);
    sim_run(&sim);
    assert_int_equal(sim.exit_status, APD_EXIT_DATA);
    assert_string_equal(sim.first_cause, "rank 2 on host, starting: the data set is damaged");
    sim_fini(&sim);
}

/* Killed while a checkpoint is on its way to the log: the record is waited for. */
static void failure_during_a_commit_waits_for_it(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct sim sim;

        sim_init(&sim, seed, 2, 40);
        sim_run_to_step(&sim, 7);
        sim_kill(&sim, 2);
        sim_kill(&sim, 1);
        sim_run(&sim);
        assert_int_equal(sim.state, FAILED);
        assert_int_equal(sim.committed_step, 7);
        sim_fini(&sim);
    }
}

static void failed_commit_does_not_end_the_run(void **state)
{
    struct sim sim;

    (void)state;
    sim_init(&sim, 12, 2, 20);
    sim.fail_next_commit = 1;
    sim_run(&sim);
    assert_int_equal(sim.state, DONE);
    assert_int_equal(sim.refused_commits, 1);
    assert_int_equal(sim.committed_step, 20);
    sim_fini(&sim);
}

static void drain_in_every_state_ends_with_75(void **state)
{
    (void)state;
    for (uint64_t at_ms = 1000; at_ms < 8000; at_ms += 53) {
        struct sim sim;
        uint64_t step;

        sim_init(&sim, at_ms, 3, 40);
        sim_run_until(&sim, at_ms);
        step = sim.step;
        if (sim.finishes == 0) {
            int was_ending = sim.ending;

            sim_request(&sim, 0, ASK(DRAIN));
            assert_int_equal(sim.client[0].acks, 1);
            sim_run(&sim);
            assert_int_equal(sim.state, DONE);
            assert_int_equal(sim.exit_status, was_ending || sim.step == 40 ? 0 : 75);
            assert_int_equal(sim.committed_step, sim.step);
            assert_in_range(sim.step, step, step + 3);
        }
        sim_fini(&sim);
    }
}

static void urgent_signal_lets_a_drain_that_was_asked_for_save(void **state)
{
    struct sim sim;

    (void)state;
    sim_init(&sim, 13, 2, 100);
    sim_run_to_step(&sim, 10);
    sim_request(&sim, 0, ASK(DRAIN));
    apd_coord_asked_to_end(sim.coord, "SIGTERM", 1);
    sim_run(&sim);
    assert_false(sim.worker[0].stopped);
    assert_int_equal(sim.exit_status, 75);
    assert_int_equal(sim.committed_step, sim.step);
    sim_fini(&sim);
}

static void second_urgent_signal_stops_without_saving(void **state)
{
    struct sim sim;

    (void)state;
    sim_init(&sim, 13, 2, 100);
    sim_run_to_step(&sim, 10);
    apd_coord_asked_to_end(sim.coord, "SIGUSR1", 0);
    apd_coord_asked_to_end(sim.coord, "SIGTERM", 1);
    apd_coord_asked_to_end(sim.coord, "SIGUSR1", 0); /* not urgent: still a drain */
    assert_false(sim.worker[0].stopped);
    apd_coord_asked_to_end(sim.coord, "SIGTERM", 1);
    sim_run(&sim);
    assert_true(sim.worker[0].stopped);
    assert_int_equal(sim.state, DONE);
    assert_int_equal(sim.exit_status, 75);
    assert_int_equal(sim.committed_step, 7);
    sim_fini(&sim);
}

static void checkpoint_request_is_answered_by_the_commit(void **state)
{
    struct sim sim;

    (void)state;
    sim_init(&sim, 14, 2, 60);
    sim_request(&sim, 0, ASK(CHECKPOINT)); /* while joining */
    assert_int_equal(sim.client[0].errors, 1);
    assert_non_null(strstr(sim.client[0].last_error, "state: "));
    sim_run_to_step(&sim, 15);
    sim_request(&sim, 0, ASK(CHECKPOINT));
    assert_int_equal(sim.client[0].checkpoints, 0);
    sim_request(&sim, 0, ASK(CHECKPOINT)); /* one at a time */
    assert_int_equal(sim.client[0].errors, 2);
    sim_run_to_step(&sim, 20);
    assert_int_equal(sim.client[0].checkpoints, 1);
    assert_in_range(sim.client[0].last_checkpoint_step, 15, 17);
    sim_run_to_step(&sim, 30);
    sim_request(&sim, 1, ASK(CHECKPOINT));
    sim_kill(&sim, 2);
    sim_run(&sim);
    assert_int_equal(sim.client[1].checkpoints, 0);
    assert_int_equal(sim.client[1].errors, 1); /* the run ended first */
    sim_fini(&sim);
}

static void requests_are_answered_in_every_state(void **state)
{
    struct sim sim;

    (void)state;
    sim_init(&sim, 15, 2, 30);
    for (int round = 0; round < 2; round++) {
        struct sim_client *client = &sim.client[0];

        sim_request(&sim, 0, ASK(GET_STATUS));
        sim_request(&sim, 0, ASK(GET_SHARDS));
        sim_request(&sim, 0, ASK(GET_EVENTS));
        sim_request(&sim, 0, ASK(GET_CONFIG));
        assert_int_equal(client->statuses, round + 1);
        assert_int_equal(client->shards, round + 1);
        assert_int_equal(client->configs, round + 1);
        assert_true(client->events > 0);
        assert_int_equal(client->errors, 0);
        sim_run_to_step(&sim, 9);
    }
    sim_request(&sim, 0, ADVPROP__V1__CLIENT_REQUEST__KIND__NOT_SET);
    assert_non_null(strstr(sim.client[0].last_error, "protocol: "));
    assert_true(sim.client[0].closed_by_server);
    sim_run(&sim);
    sim_fini(&sim);
}

static void watcher_sees_the_end_and_one_that_leaves_is_forgotten(void **state)
{
    struct sim sim;

    (void)state;
    sim_init(&sim, 16, 2, 50);
    sim_request(&sim, 0, ASK(WATCH));
    sim_request(&sim, 1, ASK(WATCH));
    sim_run_to_step(&sim, 20);
    assert_true(sim.client[1].statuses >= 20);
    sim_client_gone(&sim, 1); /* a reply to it would be a breach */
    sim_run(&sim);
    assert_int_equal(sim.client[0].last_state, DONE);
    assert_true(sim.client[0].statuses >= 50);
    sim_fini(&sim);
}

/* ---------------------------------------------------------------- random schedules */

static void random_visit(struct sim *sim)
{
    static const uint8_t wrong[APD_SECRET_BYTES] = {9};
    Advprop__V1__Join join;
    int client = (int)test_below(&sim->random, SIM_CLIENTS);

    switch (test_below(&sim->random, 8)) {
    case 0:
        sim_fill_join(sim, 1 + (uint32_t)test_below(&sim->random, sim->workers), &join);
        sim_join(sim, &join, wrong);
        break;
    case 1:
        if (sim->worker[0].joined && sim->worker[0].conn != 0)
            sim_written(sim, 1, sim->generation - 1 + 2 * test_below(&sim->random, 2), sim->step,
                        "interval");
        break;
    case 2:
        sim_client_gone(sim, client);
        break;
    case 3:
        sim->fail_next_commit = 1;
        break;
    default:
        sim_request(
            sim, client,
            (Advprop__V1__ClientRequest__KindCase)(ASK(GET_STATUS) + test_below(&sim->random, 6)));
        break;
    }
}

static void random_fault(struct sim *sim)
{
    uint32_t rank = 1 + (uint32_t)test_below(&sim->random, sim->workers);

    switch (test_below(&sim->random, 8)) {
    case 0:
        sim_kill(sim, rank);
        break;
    case 1:
        if (sim->worker[rank - 1].joined)
            sim_silence(sim, rank);
        break;
    case 2:
        if (sim->worker[rank - 1].conn != 0)
            sim_fail(sim, rank, APD_EXIT_UNAVAILABLE);
        break;
    case 3:
        sim_request(sim, 0, ASK(STOP));
        break;
    case 4:
        apd_coord_asked_to_end(sim->coord, "SIGTERM", 1);
        break;
    case 5:
        sim_request(sim, 0, ASK(DRAIN));
        break;
    default:
        break;
    }
}

static void random_schedules_hold_the_invariants(void **state)
{
    struct test_random random = test_random_start();
    unsigned done = 0, failed = 0;

    (void)state;
    for (int i = 0; i < SCHEDULES; i++) {
        uint64_t seed = test_next(&random);
        struct sim sim;

        if (test_below(&random, 2))
            sim_init(&sim, seed, 1 + (uint32_t)test_below(&random, SIM_WORKERS), 60);
        else
            sim_init_resumed(&sim, seed, 1 + (uint32_t)test_below(&random, SIM_WORKERS), 60,
                             test_below(&random, 61));
        while (sim.finishes == 0 && sim.now_ms < 12000) {
            sim_run_until(&sim, sim.now_ms + test_below(&sim.random, 900));
            if (sim.finishes == 0)
                random_visit(&sim);
            if (sim.finishes == 0 && test_below(&sim.random, 12) == 0)
                random_fault(&sim);
        }
        sim_run(&sim);
        done += sim.state == DONE;
        failed += sim.state == FAILED;
        sim_fini(&sim);
    }
    assert_true(done > SCHEDULES / 10);
    assert_true(failed > SCHEDULES / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(undisturbed_run_ends_done),
        cmocka_unit_test(last_receipt_is_waited_for),
        cmocka_unit_test(resumed_run_starts_at_the_checkpoint),
        cmocka_unit_test(lost_worker_fails_the_run_in_every_phase),
        cmocka_unit_test(failed_run_ends_within_the_grace_time),
        cmocka_unit_test(silent_worker_fails_the_run),
        cmocka_unit_test(missing_worker_fails_the_run_at_the_join_deadline),
        cmocka_unit_test(failure_of_a_worker_gives_its_exit_status),
        cmocka_unit_test(mismatching_joiner_is_refused_by_name),
        cmocka_unit_test(duplicate_rank_and_wrong_secret_do_not_disturb),
        cmocka_unit_test(stranger_without_join_is_refused),
        cmocka_unit_test(commit_of_an_older_generation_is_refused),
        cmocka_unit_test(commit_from_another_rank_does_not_count),
        cmocka_unit_test(report_that_is_not_newer_does_not_count),
        cmocka_unit_test(worker_that_cannot_start_is_the_first_cause),
        cmocka_unit_test(failure_during_a_commit_waits_for_it),
        cmocka_unit_test(failed_commit_does_not_end_the_run),
        cmocka_unit_test(drain_in_every_state_ends_with_75),
        cmocka_unit_test(urgent_signal_lets_a_drain_that_was_asked_for_save),
        cmocka_unit_test(second_urgent_signal_stops_without_saving),
        cmocka_unit_test(checkpoint_request_is_answered_by_the_commit),
        cmocka_unit_test(requests_are_answered_in_every_state),
        cmocka_unit_test(watcher_sees_the_end_and_one_that_leaves_is_forgotten),
        cmocka_unit_test(random_schedules_hold_the_invariants),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
