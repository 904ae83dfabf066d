import re
from pathlib import Path

import pytest

from aim.data.lists import Lists, Video
from aim.engine.run import content, identity, naming
from aim.ground import choices, config
from aim.ground.errors import UserError
from aim.ground.kinds import KINDS
from tests.messages import refused


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["+experiment=k400"], "k400"),
        (["+experiment=k400", "gpus=2", "data.workers=8", "tracker=wandb", "data.root=/x/y", "device=cpu"], "k400"),
        (["adapter=none", "+experiment=k400"], "k400,adapter=none"),
        (["train.batch_size=128", "adapter.ratio=0.125"], "k400,adapter.ratio=0.125,train.batch_size=128"),
        (["init='a/b c.safetensors'"], "k400,init=a_b_c.safetensors"),
        (["data.eval_on_error=skip", "train.log_every=1", "train.accumulate=2"], "k400"),
    ],
)
def test_a_run_is_named_after_the_overrides_that_change_results(overrides: list[str], expected: str) -> None:
    assert naming.run_name("k400", overrides, identity.MACHINE) == expected


def test_long_names_stay_readable_short_and_distinct() -> None:
    many = ["adapter.ratio=0.125", "train.batch_size=128", "optim.lr=1e-3", "clip.num_frames=16", "views.temporal=1"]
    more = [*many, "augment.rand_augment=2", "backbone=dinov3_vit_b16"]
    name, other = (
        naming.run_name("k400", each, identity.MACHINE) for each in (more, [*more[:-1], "backbone=dinov3_vit_l16"])
    )
    assert re.fullmatch(
        r"k400,ratio=0\.125,rand_augment=2,backbone=dinov3_vit_b16,num_frames=16,lr=1e-3,batch_size=128,.*,\w{8}", name
    )
    assert len(name) <= 105
    assert name != other
    same_word = [f"optim.lr_mult.pattern{i}=0.{i}" for i in range(20)]
    names = {
        naming.run_name("k400", [*same_word, f"{group}.temporal=1"], identity.MACHINE)
        for group in ("views", "val_views")
    }
    assert len(names) == 2


def test_the_folder_names_a_run_on_own_data() -> None:
    assert (
        naming.run_name("finetune", ["data.root=/x/pets"], identity.MACHINE, own_data=True) == "finetune,data.root=pets"
    )


def test_config_hash_ignores_the_machine_and_nothing_else() -> None:
    base = config.resolve(config.compose(["+experiment=k400"]))
    moved = config.resolve(
        config.compose(["+experiment=k400", "gpus=4", "data.root=/elsewhere", "tracker=tensorboard"])
    )
    other = config.resolve(config.compose(["+experiment=k400", "optim.lr=1e-3"]))
    assert identity.config_hash(base) == identity.config_hash(moved)
    assert identity.config_hash(base) != identity.config_hash(other)


# The leaves that may differ in a continued run; a new setting may not until it is listed here.
MAY_CHANGE = {
    "restarts", "run_dir", "device", "gpus", "debug", "init", "backbone.weights",
    "data.root", "data.workers", "data.timeout", "data.on_error", "data.eval_on_error", "data.max_bad",
    "data.cache", "data.cache_gb", "data.train", "data.val", "data.test", "data.classes",
    "data.folds",  # the content of these is hashed
    "train.accumulate", "train.epochs", "train.log_every", "train.save_minutes", "train.profile", "train.memory",
    "train.compile", "train.shard", "train.features_gb", "predictions",
    "adapter.recipe.lr", "adapter.recipe.weight_decay", "adapter.recipe.schedule", "adapter.recipe.warmup",
    "published", "backbone.source", "backbone.text", "backbone.licence",
    "tracker.kind", "tracker.project", "tracker.entity", "tracker.mode", "tracker.space",
}  # fmt: skip


def every_leaf() -> dict[str, object]:
    """All settings with a value, of configs/config.yaml and of every file of its groups."""
    found: dict[str, object] = {}
    for group in ("backbone", "adapter", "task", "data", "reader", "tracker"):
        for path in sorted((choices.CONFIGS / group).glob("*.yaml")):
            found |= choices.leaves(config.resolve(config.compose([f"{group}={path.stem}", "data.root=somewhere"])))
    return found


def test_of_all_settings_only_those_that_alter_no_result_may_change_in_a_run_that_goes_on() -> None:
    allowed = set()
    leaves = every_leaf()
    for key in leaves:
        *groups, name = key.split(".")
        one, other = [*sorted(KINDS[groups[-1]]), "other"][:2] if name == "kind" else ("one", "other")
        before: dict[str, object] = {name: one}
        now: dict[str, object] = {name: other}
        for group in reversed(groups):
            before, now = {group: before}, {group: now}
        try:
            said = identity.changes(before, now, Path("run"))
        except UserError:
            continue
        allowed.add(key)
        assert said == ([] if naming.is_one_of(key, identity.SILENT) else [f"{key} was {one}, is {other}"])
    assert len(leaves) > 100
    assert allowed == MAY_CHANGE


def test_a_setting_that_is_new_or_gone_makes_another_run() -> None:
    with refused("optim.lr", "1", "run_dir=DIR", "absent"):
        identity.changes({}, {"optim": {"lr": 1}}, Path("run"))
    with refused("optim.lr", "1", "run_dir=DIR", "absent"):
        identity.changes({"optim": {"lr": 1}}, {}, Path("run"))


A, B, C, D = (Video(f"{name}.mp4", 0) for name in "abcd")


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ([C, D], [A, B]),  # swapped, as UCF-101's splits are
        ([A, B, C], [D]),  # another border
        ([B, A], [C, D]),  # another order of training
    ],
)
def test_other_lists_of_the_same_videos_are_other_data(train: list[Video], val: list[Video]) -> None:
    before = content.of_data(Lists([A, B], [C, D], ["x"]))
    with refused("training", "list", "run_dir=DIR"):
        content.check_same({"identity": before}, content.of_data(Lists(train, val, ["x"])), Path("run"))


def test_the_order_of_the_validation_list_does_not_matter_and_its_content_does() -> None:
    before = {"identity": content.of_data(Lists([A], [B, C], ["x"]))}
    content.check_same(before, content.of_data(Lists([A], [C, B], ["x"])), Path("run"))
    with refused("validation", "list", "run_dir=DIR"):
        content.check_same(before, content.of_data(Lists([A], [C], ["x"])), Path("run"))


def test_another_list_for_the_test_is_other_data() -> None:
    two, three, other = (content.of_data(Lists([A], [B], ["x"], third=third)) for third in (None, [C], [D]))
    for before, now in ((two, three), (three, two), (three, other)):
        with refused("list", "test", "run_dir=DIR"):
            content.check_same({"identity": before}, now, Path("run"))
    content.check_same({"identity": three}, three, Path("run"))
    assert three == two | {"test_hash": three["test_hash"]}
