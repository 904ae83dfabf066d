"""The messages of a run before it begins."""

from dataclasses import replace
from pathlib import Path

import torch

from aim.data.class_folders import ClassFolders
from aim.data.lists import Lists, Video
from aim.engine.machine.distributed import World
from aim.engine.run import content, introduction
from aim.engine.run.settings import Run
from aim.ground import config
from tests.messages import named, refused
from tests.toy import TOY

WORLD = World(0, 1, torch.device("cpu"))


def own_videos(root: Path, *names: str) -> Lists:
    """The lists of a folder of empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return ClassFolders(0.25)(root)


def introduced(lists: Lists, *overrides: str) -> list[str]:
    run = config.build(config.compose([*TOY, *overrides, "train.batch_size=2"]), Run)
    return introduction.of_run(run, lists, content.of_data(lists), WORLD).splitlines()


def test_a_run_says_what_it_trains_on_and_how_long(tmp_path: Path) -> None:
    lists = own_videos(tmp_path, *(f"{name}/{i}.mp4" for name in ("jump", "run") for i in range(4)))
    where, device, split, videos, classes, one, steps = introduced(lists)
    assert where.startswith("demo in runs/demo")
    assert device.startswith("device: 1 x ")
    assert device.endswith(", fp32")
    assert videos.startswith("videos: 6 training (")
    assert classes == "2 classes, training+validation: jump 3+1, run 3+1"
    assert one.endswith("top-1 50.00 % (largest class), mean per class 50.00 % (largest class)")
    assert one not in introduced(lists, "train.eval_every=0")
    assert steps == "steps: 3 an epoch, 6 in all, of 2 clips"
    assert split.startswith(f"data: 25% of each class of {tmp_path}, by a hash of the path")
    assert "6 training, a share of 0.5 (" in introduced(lists, "data.share=0.5")[3]


def test_the_folders_or_files_that_the_split_is_from_are_named(tmp_path: Path) -> None:
    lists = own_videos(tmp_path, *(f"{part}/{name}/1.mp4" for part in ("Train", "val") for name in ("a", "b")))
    assert f"data: the folders Train and val in {tmp_path}" in introduced(lists)
    for name, text in (("classes", "a\nb\n"), ("training", "Train/a/1.mp4 a\n"), ("val", "val/b/1.mp4 1\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    said = f"data: the files training.txt and val.txt in {tmp_path}, with the classes of classes.txt"
    assert said in introduced(ClassFolders(0.25)(tmp_path))


def test_choosing_and_testing_on_the_same_videos_is_said(tmp_path: Path) -> None:
    lists = own_videos(tmp_path, *(f"{name}/{i}.mp4" for name in ("a", "b") for i in range(4)))
    assert "test=best" in introduced(lists, "test=best")[-1]
    chosen = introduced(lists, "test=best", "train.patience=3")[-1]
    assert all(word in chosen for word in ("test=best", "train.patience=3", "test.txt"))
    assert not any("choose" in line for line in introduced(lists, "test=last"))


def test_a_third_list_is_counted_and_chooses_nothing(tmp_path: Path) -> None:
    parts = ("train", "train", "val", "test")
    lists = own_videos(tmp_path, *(f"{part}/{name}/{i}.mp4" for i, part in enumerate(parts) for name in ("a", "b")))
    said = introduced(lists, "test=best", "train.patience=3")
    assert [", 2 validation (" in said[3], ", 2 test (" in said[3]] == [True, True]
    assert said[4] == "2 classes, training+validation+test: a 2+1+1, b 2+1+1"
    assert not any("test=best" in line for line in said)


def test_all_classes_are_counted_and_of_many_the_smallest_named() -> None:
    names = [f"class-{i}" for i in range(introduction.MOST_NAMED)]
    train = [Video(f"{i}.mp4", i) for i in range(len(names))] + [Video("more.mp4", 3), Video("most.mp4", 3)]
    lists = Lists(train, [Video("0.mp4", 0)], names)
    text = introduction.of_classes(lists)
    assert all(len(line) <= introduction.WIDTH for line in text.splitlines())
    each = ["0 1+1", "1 1+0", "2 1+0", "3 3+0", *(f"{i} 1+0" for i in range(4, len(names)))]
    assert " ".join(text.split()) == "60 classes, training+validation: class-" + ", class-".join(each)
    many = replace(lists, classes=[*names, "none"], third=[])
    assert introduction.of_classes(many) == (
        "61 classes, videos of each: 0 to 3 (median 1) training, 0 to 1 (median 0) validation, 0 to 0 (median 0) test; "
        "fewest: none 0, class-0 1, class-1 1"
    )


def test_the_start_says_how_much_is_read_ahead(toy_cache: Path) -> None:
    said, large = [], ["clip.num_frames=16", "clip.size=224"]
    for workers in (0, 6):
        made = config.build(config.compose([*TOY, f"data.workers={workers}", "train.accumulate=2", *large]), Run)
        lists, world = made.load_lists(), World(0, 1, torch.device("cpu"))
        said.append(
            introduction.of_loading(
                made.train_loader(made.train_dataset(lists), world), made.eval_loader(made.val_dataset(lists), world)
            )
        )
    assert said == [
        "loading: in the training process, nothing ahead (data.workers=0)",
        "loading: 6 processes a rank, 3 batches ahead in 74 MiB of shared memory",
    ]


def test_unbalanced_classes_are_said_with_what_makes_up_for_them(tmp_path: Path) -> None:
    lists = Lists([Video(f"{i}", 0) for i in range(20)] + [Video("r", 1)] * 2, [Video("v", 0)], ["a", "b"])
    (said,) = (line for line in introduced(lists) if line.startswith("unbalanced"))
    named(said, "20", "2", "train.balance=sample", "train.best_by=mean_class")
    (chosen,) = (line for line in introduced(lists, "train.balance=sample") if line.startswith("balance"))
    named(chosen, "root", "train.balance=none")
    even = replace(lists, train=lists.train[-3:])
    assert not any(line.startswith("unbalanced") for line in introduced(even))
    with refused("train.balance=logits", "train.balance=loss"):
        introduced(lists, "task=multi_label", "train.balance=logits")
