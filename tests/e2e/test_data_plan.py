"""`advprop data plan` prints which samples a run trains on."""
import support


def plan(config, *args):
    """{(step, lane, branch): [(epoch, sample)]}"""
    lines = support.run("data", "plan", config, *args).stdout.splitlines()
    rows = {}
    for line in lines:
        if line.startswith("#"):
            continue
        step, lane, branch, images = line.split("\t")
        rows[int(step), int(lane), branch] = [tuple(map(int, image.split(":")))
                                              for image in images.split()]
    return rows


def test_every_sample_comes_once_an_epoch(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, train={"batch": 60, "lanes": 3})
    rows = plan(config, "--epoch", 0, "--steps", 51)  # 3 epochs of 1,000 in 50 steps of 60
    seen = [image for images in rows.values() for image in images]
    for epoch in range(3):
        assert sorted(s for e, s in seen if e == epoch) == list(range(1000))
    assert all(len(images) == (16 if branch == "clean" else 4)
               for (_, _, branch), images in rows.items())


def test_without_shuffle_position_is_sample(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, data={"shuffle": False},
                                  train={"batch": 40, "lanes": 2})
    rows = plan(config, "--epoch", 0, "--steps", 2)
    # docs/data.md: position step * batch + j * lanes + lane; the first 16 of a lane's 20 are clean.
    for step in range(2):
        for lane in range(2):
            expected = [(0, step * 40 + j * 2 + lane) for j in range(20)]
            assert rows[step, lane, "clean"] == expected[:16]
            assert rows[step, lane, "aux"] == expected[16:]


def test_second_epoch_starts_at_its_first_whole_step(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, train={"batch": 60, "lanes": 3})
    rows = plan(config, "--epoch", 1, "--steps", 1)
    assert {step for step, _, _ in rows} == {17}  # 1,000 / 60, rounded up
    assert {epoch for images in rows.values() for epoch, _ in images} == {1}
