/* The rows of the option table. Adding an option: a field in config.h, a row here; everything else
 * (parser, checks, reference page) follows. The defaults are the paper's recipe for ResNet-50
 * (docs/method.md). No parsing here: that is config_values.c. */
#include "proto/config_options.h"

#define F(field) offsetof(struct apd_config, field)
#define INT(k, field, d, lo, hi, u, def, h)                                                        \
    {                                                                                              \
        .key = k, .unit = u, .initial = d, .help = h, .min = lo, .max = hi,                        \
        .type = APD_OPTION_INT, .defines_result = def, .offset = F(field)                          \
    }
#define REAL(k, field, d, lo, hi, u, def, h)                                                       \
    {                                                                                              \
        .key = k, .unit = u, .initial = d, .help = h, .min = lo, .max = hi,                        \
        .type = APD_OPTION_REAL, .defines_result = def, .offset = F(field)                         \
    }
#define BOOL(k, field, d, def, h)                                                                  \
    {                                                                                              \
        .key = k, .unit = "", .initial = d, .help = h, .type = APD_OPTION_BOOL,                    \
        .defines_result = def, .offset = F(field)                                                  \
    }
#define ENUM(k, field, d, w, def, h)                                                               \
    {                                                                                              \
        .key = k, .unit = "", .initial = d, .help = h, .words = w, .type = APD_OPTION_ENUM,        \
        .defines_result = def, .offset = F(field)                                                  \
    }
#define WORD(k, field, d, w, def, h)                                                               \
    {                                                                                              \
        .key = k, .unit = "", .initial = d, .help = h, .words = w, .type = APD_OPTION_WORD,        \
        .defines_result = def, .offset = F(field), .size = sizeof((struct apd_config *)0)->field   \
    }
#define TEXT(k, field, d, def, h)                                                                  \
    {                                                                                              \
        .key = k, .unit = "", .initial = d, .help = h, .type = APD_OPTION_TEXT,                    \
        .defines_result = def, .offset = F(field), .size = sizeof((struct apd_config *)0)->field   \
    }
#define REALS(k, field, count, d, lo, hi, u, def, h)                                               \
    {                                                                                              \
        .key = k, .unit = u, .initial = d, .help = h, .min = lo, .max = hi,                        \
        .type = APD_OPTION_REALS, .defines_result = def, .offset = F(field),                       \
        .count_offset = F(count), .size = sizeof((struct apd_config *)0)->field / sizeof(double)   \
    }

/* Order of the words = order of the enums in config.h. */
static const char *const mode_words[] = {"vanilla", "advprop", "fast_advprop", NULL};
static const char *const augment_words[] = {"none",        "crop_flip",   "rrc_flip", "rrc_flip_jitter",
                                            "randaugment", "autoaugment", NULL};
static const char *const stem_words[] = {"imagenet", "small", NULL};
static const char *const bn_sync_words[] = {"stats", "full", "none", NULL};
static const char *const schedule_words[] = {"step", "cosine", NULL};
static const char *const budget_words[] = {"as_written", "same", NULL};
static const char *const goal_words[] = {"untargeted", "targeted", NULL};
static const char *const bn_mode_words[] = {"train", "eval", NULL};
static const char *const mix_words[] = {"none", "mixup", "cutmix", NULL};

static const char *const arch_words[] = {
    "resnet18",        "resnet34",         "resnet50",        "resnet101",        "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2", NULL};
static const char *const format_words[] = {"idx", "images", NULL};
static const char *const level_words[] = {"error", "warn", "info", "debug", "trace", NULL};
static const char *const device_words[] = {"auto", "cpu", "cuda", "ref", NULL};
static const char *const precision_words[] = {"fp16", "bf16", "tf32", "fp32", NULL};
static const char *const isa_words[] = {"auto", "avx512", "avx2", "baseline", NULL};
static const char *const conv_words[] = {"auto", "direct", "winograd", NULL};

/* defines_result of a row: does another value give other weights? */
enum { FREE, DEFINES };

/* clang-format off */
const struct apd_option apd_options[] = {
    INT("seed", seed, "0", 0, 0x1p63, "", DEFINES,
        "Seed of all randomness: initial weights, order of samples, augmentation, noise and shuffle."),
    TEXT("init_from", init_from, "\"\"", DEFINES,
         "Checkpoint (safetensors) whose weights the run starts from; empty: initialise at random."),
    WORD("augment", augment, "crop_flip", augment_words, DEFINES,
         "What is done to training images. crop_flip: a random crop after padding and a random mirror image. For image files also rrc_flip: a random part, resized, and a random mirror image; and after that colour jitter, RandAugment or AutoAugment."),
    WORD("device", device, "auto", device_words, FREE,
         "Where workers compute: cpu (oneDNN), ref (plain C, slow, for checking), or the best there is."),

    WORD("model.arch", model.arch, "resnet50", arch_words, DEFINES,
         "Network, with torchvision's parameter names."),
    INT("model.width", model.width, "64", 1, 1024, "channels", DEFINES,
        "Channels of the stem, from which all other widths follow; 64 is the standard network. ResNeXt-50 takes multiples of 16, ResNeXt-101 of 8."),
    ENUM("model.stem", model.stem, "imagenet", stem_words, DEFINES,
         "First layers: a 7x7 stride-2 convolution and max pooling, or for small images one 3x3 stride-1 convolution."),
    BOOL("model.zero_init", model.zero_init, "off", DEFINES,
         "Start the last gamma of every residual block at 0."),

    WORD("data.format", data.format, "idx", format_words, FREE,
         "Layout of the data set; idx: the four files of MNIST and its relatives, plain or gzipped; images: JPEG, PNG and WebP files in class folders or tar shards."),
    TEXT("data.path", data.path, "\"\"", FREE,
         "Folder of the data set, relative to where the command is typed; required. A run goes on only over the same data, wherever they lie."),
    TEXT("data.train", data.train, "\"\"", FREE,
         "images: folder, tar shards (a pattern such as train-{0000..0127}.tar) or manifest of the training set, below data.path; empty: train."),
    TEXT("data.test", data.test, "\"\"", FREE,
         "images: the same of the test set; empty: val if there is one, otherwise test."),
    INT("data.size_px", data.size_px, "224", 1, 4096, "pixels", DEFINES,
        "images: side of the square that image files become."),
    INT("data.resize_px", data.resize_px, "0", 0, 8192, "pixels", FREE,
        "images: shorter side to which test images are resized before the middle square is cut out; 0: data.size_px * 256 / 224."),
    INT("data.max_px", data.max_px, "67108864", 1, 0x1p40, "pixels", DEFINES,
        "images: larger images are bad samples; their header tells."),
    BOOL("data.shuffle", data.shuffle, "on", DEFINES,
         "Permute the samples of every epoch; off: position p is sample p."),
    INT("data.window", data.window, "16384", 1, 0x1p30, "samples", DEFINES,
        "Samples of a lane's stream that are permuted among each other; shards are permuted anyway."),
    INT("data.channels", data.channels, "0", 0, 4, "channels", DEFINES,
        "Channels of an image; 0: as stored. Grey images become that many equal channels, for networks made for colour."),
    INT("data.crop_padding_px", data.crop_padding_px, "4", 0, 64, "pixels", DEFINES,
        "Zero padding on each side from which crop_flip cuts the image at random."),
    INT("data.threads", data.threads, "1", 1, 256, "threads", FREE,
        "Threads of a worker that read, decode and augment images."),
    INT("data.read_ahead", data.read_ahead, "2", 1, 1024, "steps", FREE,
        "Steps whose images are made ready before they are needed; memory grows with it."),
    REAL("data.max_bad", data.max_bad, "0.001", 0, 1, "of an epoch", FREE,
         "Samples that cannot be used are left out and listed; a larger share of them ends the run."),

    REAL("jitter.brightness", jitter.brightness, "0.4", 0, 100, "", DEFINES,
         "Colour jitter: brightness times a factor between 1 - x and 1 + x."),
    REAL("jitter.contrast", jitter.contrast, "0.4", 0, 100, "", DEFINES,
         "Colour jitter: contrast times a factor between 1 - x and 1 + x."),
    REAL("jitter.saturation", jitter.saturation, "0.4", 0, 100, "", DEFINES,
         "Colour jitter: saturation times a factor between 1 - x and 1 + x."),
    REAL("jitter.hue", jitter.hue, "0.1", 0, 0.5, "turns", DEFINES,
         "Colour jitter: hue turned by up to x to either side."),
    INT("randaugment.ops", randaugment.ops, "2", 0, 16, "operations", DEFINES,
        "RandAugment: operations an image."),
    INT("randaugment.magnitude", randaugment.magnitude, "9", 0, 30, "", DEFINES,
        "RandAugment: strength of the operations."),
    REAL("erase.probability", erase.probability, "0", 0, 1, "", DEFINES,
         "Random erasing: share of image files in which a random box is blanked at the end."),
    BOOL("erase.noise", erase.noise, "off", DEFINES, "Random erasing: random bytes instead of black."),

    ENUM("train.mode", train.mode, "fast_advprop", mode_words, DEFINES,
         "vanilla: all images clean, one batch norm; advprop: all images clean and once more attacked, through the auxiliary batch norm; fast_advprop: a part of each batch is attacked instead. What is auto elsewhere follows from the mode."),
    REAL("train.epochs", train.epochs, "105", 0, 1e6, "epochs", DEFINES,
         "Passes over the data set, before train.budget."),
    INT("train.max_steps", train.max_steps, "0", 0, 0x1p50, "steps", DEFINES,
        "End after this many steps; 0: no limit. The learning-rate schedule does not change."),
    INT("train.batch", train.batch, "320", 1, 0x1p24, "images", DEFINES,
        "Images of one step over all lanes, clean and auxiliary together."),
    INT("train.lanes", train.lanes, "4", 1, 65536, "lanes", DEFINES,
        "Fixed slices of the batch, each with batch statistics of its own; the most workers a run can have."),
    INT("train.clean_parts", train.clean_parts, "4", 1, 65536, "parts", DEFINES,
        "Clean share of a lane's slice in mode fast_advprop, as clean_parts : aux_parts."),
    INT("train.aux_parts", train.aux_parts, "1", 1, 65536, "parts", DEFINES,
        "Attacked share of a lane's slice in mode fast_advprop, as clean_parts : aux_parts."),
    ENUM("train.budget", train.budget, "as_written", budget_words, DEFINES,
         "same: divide train.epochs and schedule.milestones by the cost of the mode, 1 + p_adv * attack.steps or, for advprop, attack.steps + 2, rounding half to even."),
    REAL("train.weight_clean", train.weight_clean, "1", 0, 1e3, "", DEFINES,
         "Weight of the loss of clean images."),
    REAL("train.weight_noise", train.weight_noise, "0.5", 0, 1e3, "", DEFINES,
         "Weight of the loss of the noise pass, whose image gradient makes the attack."),
    REAL("train.weight_adv", train.weight_adv, "auto", 0, 1e3, "", DEFINES,
         "Weight of the loss of attacked images; auto: 0.5, in mode advprop 1."),
    REAL("train.label_smoothing", train.label_smoothing, "0", 0, 1, "", DEFINES,
         "s: the target is 1 - s for the true class and s / (classes - 1) for every other one; below 1."),
    BOOL("train.recompute", train.recompute, "off", FREE,
         "Keep only the blocks' outputs from forward to backward and compute the rest again; same result, about half the memory, one more forward pass."),

    REAL("attack.eps", attack.eps, "1", 0, 255, "1/255 pixel", DEFINES,
         "Largest change of a pixel, and of the random start."),
    REAL("attack.step", attack.step, "1", 0, 255, "1/255 pixel", DEFINES,
         "Length of one attack step; at least eps / steps is used."),
    INT("attack.steps", attack.steps, "auto", 1, 1000, "steps", DEFINES,
        "K, noise passes and attack steps per batch; auto: 1, in mode advprop 5."),
    ENUM("attack.goal", attack.goal, "auto", goal_words, DEFINES,
         "untargeted: up the loss of the true label; targeted: down the loss of a random label. auto: untargeted, in mode advprop targeted."),
    ENUM("attack.bn_mode", attack.bn_mode, "auto", bn_mode_words, DEFINES,
         "Batch norm of noise passes: by the batch, or by the running statistics of auxiliary BN. auto: train, in mode advprop eval."),
    BOOL("attack.reuse_gradients", attack.reuse_gradients, "auto", DEFINES,
         "Train on the weight gradients of noise passes, too. auto: on, in mode advprop off."),
    REAL("attack.noise_prob", attack.noise_prob, "0.4207", 0, 1, "", DEFINES,
         "Probability that a batch starts from random noise; otherwise it starts from the clean image."),
    BOOL("attack.shuffle", attack.shuffle, "auto", DEFINES,
         "Permute attacked images over all lanes before they are trained on; off leaks labels through the batch statistics of noise passes. auto: on, in mode advprop off."),

    ENUM("mix.kind", mix.kind, "none", mix_words, DEFINES,
         "Train clean images mixed with each other: mixup blends two images, cutmix pastes a box of one into the other."),
    REAL("mix.alpha", mix.alpha, "1", 0.01, 4, "", DEFINES,
         "The share of the second image is drawn from Beta(alpha, alpha)."),
    BOOL("mix.noise", mix.noise, "off", DEFINES, "Mix the images of noise passes, too."),
    BOOL("mix.adv", mix.adv, "off", DEFINES, "Mix attacked images, too."),

    ENUM("bn.sync", bn.sync, "stats", bn_sync_words, DEFINES,
         "Main batch norm over lanes: stats pools the running statistics only, full also normalises with pooled statistics, none keeps the first worker's."),
    REAL("bn.momentum", bn.momentum, "0.1", 0, 1, "", DEFINES,
         "Share of a batch in the running statistics."),
    REAL("bn.eps", bn.eps, "1e-05", 1e-12, 1, "", DEFINES,
         "Added to the variance under the root."),

    REAL("optim.lr", optim.lr, "0.1", 0, 1e3, "", DEFINES, "Learning rate before the schedule."),
    REAL("optim.momentum", optim.momentum, "0.9", 0, 1, "", DEFINES, "Momentum of SGD."),
    REAL("optim.weight_decay", optim.weight_decay, "0.0001", 0, 10, "", DEFINES,
         "Weight decay on every parameter, batch norm and bias included."),
    BOOL("optim.nesterov", optim.nesterov, "off", DEFINES, "Nesterov's form of momentum."),
    REAL("optim.lr_factor_shared", optim.lr_factor_shared, "1", 0, 1e3, "", DEFINES,
         "Factor of the learning rate for convolutions and the classifier."),
    REAL("optim.lr_factor_main", optim.lr_factor_main, "1", 0, 1e3, "", DEFINES,
         "Factor of the learning rate for the main batch norm."),
    REAL("optim.lr_factor_aux", optim.lr_factor_aux, "1", 0, 1e3, "", DEFINES,
         "Factor of the learning rate for the auxiliary batch norm."),
    REAL("optim.ema_decay", optim.ema_decay, "0", 0, 1, "", DEFINES,
         "Evaluate an exponential average of weights and statistics with this decay a step, below 1; 0: the weights themselves."),

    ENUM("schedule.kind", schedule.kind, "step", schedule_words, DEFINES,
         "step: times gamma at each milestone; cosine: half a cosine from the full rate to 0 at the end."),
    REALS("schedule.milestones", schedule.milestones, schedule.milestone_count, "[30, 60, 90, 100]",
          0, 1e6, "epochs", DEFINES,
          "Where the step schedule multiplies the rate by gamma, ascending, before train.budget; at most 16."),
    REAL("schedule.gamma", schedule.gamma, "0.1", 0, 1, "", DEFINES,
         "Factor at each milestone of the step schedule."),
    REAL("schedule.warmup_epochs", schedule.warmup_epochs, "0", 0, 1e6, "epochs", DEFINES,
         "Epochs at the start over which the rate rises linearly."),

    REAL("eval.every_epochs", eval.every_epochs, "1", 0, 1e6, "epochs", FREE,
         "Evaluate on the test set this often; 0: only at the end."),
    INT("eval.batch", eval.batch, "256", 1, 65536, "images", FREE, "Images a worker evaluates at once."),
    INT("eval.attack_steps", eval.attack_steps, "10", 0, 1000, "steps", FREE,
        "Steps of the PGD attack under which the final model is evaluated; 0: no such evaluation."),
    REAL("eval.attack_eps", eval.attack_eps, "1", 0, 255, "1/255 pixel", FREE,
         "Largest change of a pixel by that attack."),
    REAL("eval.attack_step", eval.attack_step, "0.25", 0, 255, "1/255 pixel", FREE,
         "Length of one step of that attack."),
    INT("eval.attack_images", eval.attack_images, "0", 0, 0x1p40, "images", FREE,
        "Attack the first this many images of the test set; 0: all."),

    REAL("checkpoint.every_s", checkpoint.every_s, "60", 0, 1e9, "seconds", FREE,
         "Write a checkpoint this often; 0: only at epoch ends, on drain and on request."),
    INT("checkpoint.keep_last", checkpoint.keep_last, "2", 1, 1e6, "checkpoints", FREE,
        "How many of the newest checkpoints are kept; the best one is kept too."),
    INT("checkpoint.keep_every_epochs", checkpoint.keep_every_epochs, "0", 0, 1e6, "epochs", FREE,
        "Also keep the checkpoint of every this many epochs; 0: none."),

    BOOL("log.per_step", log.per_step, "off", FREE, "Write every step to metrics.jsonl."),
    REAL("log.every_s", log.every_s, "1", 0.01, 1e6, "seconds", FREE,
         "Otherwise write one line of metrics this often."),
    WORD("log.level", log.level, "info", level_words, FREE, "Least important messages in the logs."),

    REAL("cluster.join_timeout_s", cluster.join_timeout_s, "120", 1, 1e6, "seconds", FREE,
         "How long the coordinator waits for all workers at the start."),
    REAL("cluster.silent_timeout_s", cluster.silent_timeout_s, "60", 1, 1e6, "seconds", FREE,
         "A worker silent for this long ends the start; the run goes on from its last checkpoint."),

    INT("cpu.threads", cpu.threads, "0", 0, 1024, "threads", FREE,
        "Threads of a worker; 0: the host's cores divided by its workers."),
    WORD("cpu.isa", cpu.isa, "auto", isa_words, FREE, "Instruction set of the cpu device."),
    WORD("cpu.conv_algo", cpu.conv_algo, "auto", conv_words, FREE,
         "Convolution algorithm of the cpu device."),

    WORD("cuda.precision", cuda.precision, "fp16", precision_words, FREE,
         "What the cuda device keeps activations in and multiplies; weights, statistics and gradients are kept in fp32."),
    REAL("cuda.loss_scale", cuda.loss_scale, "256", 1, 65536, "", FREE,
         "fp16: factor of the loss at the start. It is halved when a gradient overflows, and that step left out; doubled after 2,000 good steps."),
    BOOL("cuda.deterministic", cuda.deterministic, "on", FREE,
         "Only convolution engines and algorithms of NCCL that give the same bits every time."),
    BOOL("cuda.graphs", cuda.graphs, "on", FREE,
         "Replay a step's passes as CUDA graphs; off: launch every kernel by itself, for debugging."),
    REAL("cuda.bucket_mb", cuda.bucket_mb, "25", 0.001, 10000, "MB", FREE,
         "Gradients are exchanged in pieces of this size while the backward pass goes on."),
};
/* clang-format on */

const size_t apd_option_count = sizeof apd_options / sizeof *apd_options;

const char *apd_config_mode_name(const struct apd_config *config)
{
    return mode_words[config->train.mode];
}
