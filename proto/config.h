/* run.yaml: one table of options makes the parser, the checks, `advprop config explain`, the
 * reference page and the effective file. Every option is a dotted key ("attack.eps") of one scalar
 * or list type.
 *
 * Loading order: table defaults, then the file, then key=value overrides. Unknown keys, wrong types
 * and values out of range are errors that name file and line (or the override), the key, what was
 * expected and what was found; an unknown key also names the nearest one. */
#ifndef APD_PROTO_CONFIG_H
#define APD_PROTO_CONFIG_H

#include "base/err.h"
#include "base/hash.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define APD_TEXT       1024 /* bytes of a text option */
#define APD_MILESTONES 16
#define APD_AUTO                                                                                   \
    (-1) /* of an option that may be "auto", before apd_config_load has resolved it                \
          */

enum apd_mode { APD_MODE_VANILLA, APD_MODE_ADVPROP, APD_MODE_FAST_ADVPROP };
enum apd_goal { APD_GOAL_UNTARGETED, APD_GOAL_TARGETED };
enum apd_bn_mode { APD_BN_MODE_TRAIN, APD_BN_MODE_EVAL };
enum apd_mix_kind { APD_MIX_NONE, APD_MIX_MIXUP, APD_MIX_CUTMIX };
enum apd_stem { APD_STEM_IMAGENET, APD_STEM_SMALL };
enum apd_bn_sync { APD_BN_SYNC_STATS, APD_BN_SYNC_FULL, APD_BN_SYNC_NONE };
enum apd_schedule { APD_SCHEDULE_STEP, APD_SCHEDULE_COSINE };
enum apd_budget { APD_BUDGET_AS_WRITTEN, APD_BUDGET_SAME };

/* The effective configuration; each field's key, unit, default, range and meaning is in config.c.
 */
struct apd_config {
    int64_t seed;

    struct {
        char arch[32]; /* a name of the table in worker/model/arch.c */
        int64_t width; /* channels of the stem; 64 is the standard network */
        int64_t stem;  /* enum apd_stem */
        int64_t zero_init;
    } model;

    struct {
        char format[32]; /* idx, images */
        char path[APD_TEXT], train[APD_TEXT], test[APD_TEXT];
        int64_t size_px, resize_px; /* of image files; resize_px 0: size_px * 256 / 224 */
        int64_t max_px;
        int64_t shuffle;
        int64_t window;
        int64_t channels; /* 0: as stored */
        int64_t crop_padding_px;
        int64_t threads;    /* decode threads of a worker */
        int64_t read_ahead; /* steps */
        double max_bad;     /* share of an epoch's samples */
    } data;
    char augment[32]; /* a name of worker/data/augment_image.h */

    struct {
        double brightness, contrast, saturation, hue;
    } jitter;

    struct {
        int64_t ops, magnitude;
    } randaugment;

    struct {
        double probability;
        int64_t noise;
    } erase;

    struct {
        int64_t mode; /* enum apd_mode */
        double epochs;
        int64_t max_steps;              /* 0: no limit */
        int64_t batch;                  /* B, images a step over all lanes */
        int64_t lanes;                  /* V */
        int64_t clean_parts, aux_parts; /* ratio of a lane's slice, 4:1 */
        int64_t budget;                 /* enum apd_budget */
        double weight_clean, weight_noise, weight_adv;
        double label_smoothing;
        int64_t recompute;
    } train;

    struct {
        double eps, step; /* 1/255 pixel units */
        int64_t steps;    /* K */
        int64_t goal;     /* enum apd_goal */
        int64_t bn_mode;  /* enum apd_bn_mode */
        int64_t reuse_gradients;
        double noise_prob;
        int64_t shuffle; /* attacked images over lanes */
    } attack;

    struct {
        int64_t kind; /* enum apd_mix_kind */
        double alpha; /* of Beta(alpha, alpha) */
        int64_t noise, adv;
    } mix;

    struct {
        int64_t sync; /* enum apd_bn_sync */
        double momentum, eps;
    } bn;

    struct {
        double lr, momentum, weight_decay;
        int64_t nesterov;
        double lr_factor_shared, lr_factor_main, lr_factor_aux;
        double ema_decay; /* 0: no average */
    } optim;

    struct {
        int64_t kind;                      /* enum apd_schedule */
        double milestones[APD_MILESTONES]; /* epochs */
        int64_t milestone_count;
        double gamma;
        double warmup_epochs;
    } schedule;

    struct {
        double every_epochs; /* 0: only at the end */
        int64_t batch;
        int64_t attack_steps;  /* PGD at the end; 0: none */
        double attack_eps;     /* 1/255 */
        double attack_step;    /* 1/255 */
        int64_t attack_images; /* first images of the test set; 0: all */
    } eval;

    struct {
        double every_s;
        int64_t keep_last;
        int64_t keep_every_epochs; /* 0: none */
    } checkpoint;

    struct {
        int64_t per_step;
        double every_s; /* metrics.jsonl otherwise */
        char level[16];
    } log;

    struct {
        double join_timeout_s;
        double silent_timeout_s; /* a worker silent this long ends the run */
    } cluster;

    char init_from[APD_TEXT];
    char device[16]; /* auto, cpu, cuda, ref */
    struct {
        int64_t threads; /* per worker; 0: cores of the host divided by its workers */
        char isa[16];
        char conv_algo[16];
    } cpu;
    struct {
        char precision[8]; /* fp16, bf16, tf32, fp32 */
        double loss_scale;
        int64_t deterministic, graphs;
        double bucket_mb;
    } cuda;
};

/* `path` NULL: defaults and overrides only. overrides: "key=value" texts. Options left at auto get
 * what the mode means (docs/method.md). The result is range-checked but not cross-checked. */
APD_MUST_USE enum apd_code apd_config_load(const char *path, const char *const *overrides,
                                           size_t override_count, struct apd_config *out,
                                           struct apd_err *err);

/* Combinations: batch divides by lanes, the lane's slice by the ratio, workers <= lanes, ... The
 * message says why a combination makes no sense. workers 0: not known yet. */
APD_MUST_USE enum apd_code apd_config_check(const struct apd_config *config, int64_t workers,
                                            struct apd_err *err);

/* The effective file: every option, in table order, loadable again to the same values. Caller
 * frees. */
APD_MUST_USE enum apd_code apd_config_print(const struct apd_config *config, char **out_yaml,
                                            struct apd_err *err);

/* SHA-256 of the options that define the result (all but logging, checkpoint, cluster, device and
 * evaluation cadence): a run directory refuses to go on under another one. */
APD_MUST_USE enum apd_code apd_config_digest(const struct apd_config *config,
                                             char out[APD_SHA256_HEX], struct apd_err *err);

/* `advprop config explain [KEY]`: text for people; markdown = 1: the reference page's table.
 * APD_USAGE for an unknown key (names the nearest). */
APD_MUST_USE enum apd_code apd_config_explain(const char *key, int markdown, FILE *out,
                                              struct apd_err *err);

/* "vanilla", "advprop" or "fast_advprop". */
const char *apd_config_mode_name(const struct apd_config *config);

/* Epochs and milestones that are really trained: train.budget same divides both by the cost of an
 * image, 1 + p_adv * attack.steps in mode fast_advprop, attack.steps + 2 in advprop, 1 in vanilla,
 * and rounds half to even;
 * as_written copies them. out_milestones: [APD_MILESTONES], schedule.milestone_count of them are
 * set. */
void apd_config_budget(const struct apd_config *config, double *out_epochs, double *out_milestones);

/* Steps of a run over a data set of `samples`: all samples of all epochs are trained, so the last
 * batch may begin the next epoch; at most train.max_steps. *out_full (may be NULL): without
 * train.max_steps. */
uint64_t apd_config_steps(const struct apd_config *config, uint64_t samples, uint64_t *out_full);

/* Images of one lane's slice of a step; all of them clean in mode vanilla. */
void apd_config_lane_split(const struct apd_config *config, uint32_t *out_clean, uint32_t *out_aux);

#endif
