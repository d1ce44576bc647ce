"""Which sample is trained when, from the formulas of docs/data.md."""
import philox

SHARD, WINDOW = 1024, 16384


def epoch_line(seed, epoch, samples):
    """The epoch's samples, shards in random order."""
    shards = [range(first, min(first + SHARD, samples)) for first in range(0, samples, SHARD)]
    key = philox.key64(philox.stream(seed, philox.PLAN_SHARDS, epoch, 0, 0))
    return [sample for t in range(len(shards)) for sample in shards[philox.permute(key, len(shards), t)]]


def sample_at(seed, samples, lanes, g):
    """(epoch, sample) at the global position g."""
    epoch, p = divmod(g, samples)
    i, c = divmod(p, lanes)
    start = c * (samples // lanes) + min(c, samples % lanes)
    length = samples // lanes + (c < samples % lanes)
    k = i // WINDOW
    key = philox.key64(philox.stream(seed, philox.PLAN_WINDOW, epoch, c << 32 | k, 0))
    place = start + k * WINDOW + philox.permute(key, min(WINDOW, length - k * WINDOW), i % WINDOW)
    return epoch, epoch_line(seed, epoch, samples)[place]


def steps(c, samples):
    """[step][lane] = {branch: [(epoch, sample)]} of options c, from the run's first step to train.max_steps."""
    batch, lanes, mode = c["train.batch"], c["train.lanes"], c["train.mode"]
    each = batch // lanes
    clean = each * c["train.clean_parts"] // (c["train.clean_parts"] + c["train.aux_parts"])
    parts = {"vanilla": {"clean": slice(each)},
             "advprop": {"clean": slice(each), "aux": slice(each)},
             "fast_advprop": {"clean": slice(clean), "aux": slice(clean, each)}}[mode]

    def ids(step, lane):
        return [sample_at(c["seed"], samples, lanes, step * batch + j * lanes + lane) for j in range(each)]

    return [[{branch: ids(step, lane)[part] for branch, part in parts.items()} for lane in range(lanes)]
            for step in range(c["train.max_steps"])]
