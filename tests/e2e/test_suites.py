"""advprop eval on other images than the test set: any folder, and the suites of corruptions and of fewer classes."""
import csv
import io
import json

import numpy as np
import pytest
import support

PIL = pytest.importorskip("PIL.Image", reason="python3-pil is not installed")

CORRUPTIONS = ("gaussian_noise", "fog", "pixelate", "saturate")
ALEXNET = (0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324,
           0.564592, 0.853204, 0.646056, 0.717840, 0.606500)
ALL = ("gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog brightness "
       "contrast elastic_transform pixelate jpeg_compression").split()


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    config = support.write_config(folder / "run.yaml", tiny_data, train={"max_steps": 40}, optim={"lr": 0.1})
    support.run("train", config, "--workers", 2, "--run", folder / "run", "--quiet")
    return folder / "run", tiny_data


def write_images(folder, images, labels):
    for number, (image, label) in enumerate(zip(images, labels)):
        path = folder / str(label)
        path.mkdir(parents=True, exist_ok=True)
        PIL.fromarray(image).save(path / f"{number:05d}.png")


def test_images_of(data):
    return support.read_idx(data / "t10k-images-idx3-ubyte"), support.read_idx(data / "t10k-labels-idx1-ubyte")


test_images_of.__test__ = False


def evaluate(*args):
    done = support.run("eval", *args, "--json")
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_folder_of_the_test_images_gives_the_test_sets_result(trained, workdir):
    run_dir, data = trained
    write_images(workdir / "set", *test_images_of(data))
    expected = evaluate(run_dir)
    for workers in (1, 2):
        found = evaluate(run_dir, "--data", workdir / "set", "--workers", workers)
        for a, b in zip(expected, found):  # sorted by class there: the sum is rounded in another order
            assert a["images"] == b["images"] and a["top1"] == b["top1"] and a["top5"] == b["top5"]
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-12)


@pytest.mark.parametrize("json_option", ((), ("--json",)))
def test_set_without_a_usable_image_is_an_error(trained, workdir, json_option):
    path = workdir / "set" / "7" / "text.png"
    path.parent.mkdir(parents=True)
    path.write_text("no image")
    done = support.run("eval", trained[0], "--data", workdir / "set", "--csv", workdir / "parts.csv", *json_option,
                       check=65)
    assert f"{workdir / 'set'}: none of 1 images can be used" in done.stderr
    assert "nan" not in done.stdout and not (workdir / "parts.csv").exists()


def test_suite_that_data_corrupt_made(trained, workdir):
    run_dir, data = trained
    support.run("data", "corrupt", data, workdir / "c", "--limit", 40, "--corruption", "brightness,pixelate")
    (found,) = evaluate(run_dir, "--suite", "imagenet-c", "--data", workdir / "c", "--bn", "main")
    assert [one["name"] for one in found["corruptions"]] == ["brightness", "pixelate"]
    for one in found["corruptions"]:
        assert len(one["errors"]) == 5
        for severity in (1, 5):  # the same images as an ordinary folder
            (alone,) = evaluate(run_dir, "--data", workdir / "c" / one["name"] / str(severity), "--bn", "main")
            assert alone["images"] == 40
            assert one["errors"][severity - 1] == pytest.approx(1 - alone["top1"] / 40, abs=1e-9)


def test_suites_that_data_corrupt_made_of_idx_folder_and_tars_agree(trained, workdir):
    run_dir, data = trained
    images, labels = test_images_of(data)
    write_images(workdir / "set", images[:60], labels[:60])
    support.run("data", "pack", workdir / "set", workdir / "tars")
    support.run("data", "corrupt", data, workdir / "of idx", "--limit", 60, "-c", "contrast,pixelate")
    for name, source in (("of folder", "set"), ("of tars", "tars")):
        support.run("data", "corrupt", workdir / source, workdir / name, "-c", "contrast,pixelate", "--size", 28,
                    "--resize", 28, "--channels", 1)
    results = [evaluate(run_dir, "--suite", "imagenet-c", "--data", workdir / name)
               for name in ("of idx", "of folder", "of tars")]
    assert len(results[0]) == 2 and results[0] == results[1] == results[2]  # nothing random in these two


def test_more_than_ten_classes_of_idx_are_found_again(tiny_data, workdir):
    for name in ("train", "t10k"):
        images = support.read_idx(tiny_data / f"{name}-images-idx3-ubyte")
        labels = support.read_idx(tiny_data / f"{name}-labels-idx1-ubyte")
        (workdir / f"{name}-images-idx3-ubyte").write_bytes(support.idx_bytes(images))
        (workdir / f"{name}-labels-idx1-ubyte").write_bytes(support.idx_bytes(labels + 2))
    config = support.write_config(workdir / "run.yaml", workdir, train={"max_steps": 2})
    support.run("train", config, "--workers", 1, "--run", workdir / "run", "--quiet")
    support.run("data", "corrupt", workdir, workdir / "c", "--limit", 40, "-c", "fog", "-s", 1)
    (found,) = evaluate(workdir / "run", "--data", workdir / "c" / "fog" / "1", "--bn", "main")
    assert found["images"] == 40


def make_c(root, data, corruptions, severities=(1, 2, 3, 4, 5), count=40):
    images, labels = test_images_of(data)
    random = np.random.RandomState(4)
    for place, corruption in enumerate(corruptions):
        for severity in severities:
            noise = random.normal(0, 6 * severity * (1 + place), (count, *images.shape[1:]))
            changed = np.clip(images[:count] + noise, 0, 255).astype(np.uint8)
            write_images(root / corruption / str(severity), changed, labels[:count])


def errors_from(rows, bn):
    """{corruption: [error of each severity]} counted from the predictions alone."""
    wrong = {}
    for row in rows:
        if row["bn"] == bn:
            wrong.setdefault(row["part"], []).append(row["label"] != row["predicted"])
    errors = {}
    for part, all_of_it in wrong.items():
        corruption, severity = part.split("/")
        errors.setdefault(corruption, {})[int(severity)] = np.mean(all_of_it)
    return {name: [by_severity[s] for s in sorted(by_severity)] for name, by_severity in errors.items()}


def test_imagenet_c_is_what_its_predictions_say(trained, workdir):
    run_dir, data = trained
    make_c(workdir / "c", data, CORRUPTIONS)
    found = evaluate(run_dir, "--suite", "imagenet-c", "--data", workdir / "c", "--workers", 2,
                     "--predictions", workdir / "predictions.csv", "--csv", workdir / "parts.csv")
    rows = rows_of(workdir / "predictions.csv")
    assert len(rows) == 2 * len(CORRUPTIONS) * 5 * 40
    assert len({(row["bn"], row["part"], row["image"]) for row in rows}) == len(rows)
    for result in found:
        errors = errors_from(rows, result["name"])
        assert [one["name"] for one in result["corruptions"]] == list(CORRUPTIONS)
        for one in result["corruptions"]:
            assert one["errors"] == pytest.approx(errors[one["name"]], abs=1e-12)
            assert one["mean_error"] == pytest.approx(np.mean(errors[one["name"]]))
        counted = [np.mean(errors[name]) for name in CORRUPTIONS if name in ALL]
        assert result["counted"] == len(counted) == 3
        assert result["mean_error"] == pytest.approx(np.mean(counted))
        assert result["mce"] is None  # twelve corruptions are not there
    parts = rows_of(workdir / "parts.csv")
    assert len(parts) == 2 * len(CORRUPTIONS) * 5
    assert sum(int(part["images"]) for part in parts) == len(rows)


def test_mce_of_a_whole_suite_and_its_chart(trained, workdir):
    run_dir, data = trained
    make_c(workdir / "c", data, ALL, count=10)
    (found,) = evaluate(run_dir, "--suite", "imagenet-c", "--data", workdir / "c", "--bn", "main", "--predictions",
                        workdir / "predictions.csv", "--chart", workdir / "chart.svg")
    errors = errors_from(rows_of(workdir / "predictions.csv"), "main")
    expected = np.mean([np.mean(errors[name]) / alexnet for name, alexnet in zip(ALL, ALEXNET)])
    assert found["mce"] == pytest.approx(expected)
    chart = (workdir / "chart.svg").read_text()
    assert chart.startswith("<svg") and all(name in chart for name in ALL)


@pytest.mark.parametrize("suite", ["imagenet-r", "imagenet-a", "stylized"])
def test_suites_of_fewer_classes_predict_among_them(trained, workdir, suite):
    run_dir, data = trained
    images, labels = test_images_of(data)
    kept = np.isin(labels, (2, 4, 7))
    write_images(workdir / "set", images[kept], labels[kept])
    (found,) = evaluate(run_dir, "--suite", suite, "--data", workdir / "set", "--bn", "main", "--predictions",
                        workdir / "predictions.csv")
    support.run("eval", run_dir, "--bn", "main", "--logits", workdir / "logits.safetensors")
    logits = support.read_safetensors(workdir / "logits.safetensors")[0]["logits"][kept]
    if suite != "stylized":
        logits = np.where(np.isin(np.arange(10), (2, 4, 7)), logits, -np.inf)
    assert found["images"] == kept.sum()
    assert found["top1"] == (logits.argmax(1) == labels[kept]).sum()
    by_name = {row["image"]: int(row["predicted"]) for row in rows_of(workdir / "predictions.csv")}
    for number, (label, predicted) in enumerate(zip(labels[kept], logits.argmax(1))):
        assert by_name[f"{label}/{number:05d}.png"] == predicted


def test_what_cannot_be_evaluated_says_why(trained, workdir):
    run_dir, data = trained
    images, labels = test_images_of(data)
    write_images(workdir / "set", images[:4], ["cat", "dog", "cat", "dog"])
    done = support.run("eval", run_dir, "--data", workdir / "set", check=65)
    assert "class cat is none of the 10" in done.stderr
    assert "imagenet-c" in support.run("eval", run_dir, "--suite", "imagenet-x", check=64).stderr
    (workdir / "empty").mkdir()
    done = support.run("eval", run_dir, "--suite", "imagenet-c", "--data", workdir / "empty", check=65)
    assert "CORRUPTION/SEVERITY" in done.stderr
    assert not list(workdir.glob("*.tmp.*"))
