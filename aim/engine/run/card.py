"""The model card of a checkpoint: Markdown with Hugging Face's front matter, every number of it from results.json.

The front matter's keys are those of the hub's documentation ("Model Cards", "Annotated Model Card Template").
"""

import html
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import yaml

from aim.engine.run import content, results
from aim.engine.scores import metrics
from aim.engine.scores.guessing import baseline_of
from aim.engine.trained.checkpoint import BEST, Checkpoint
from aim.engine.trained.recogniser import Trained, settings_of
from aim.ground.amounts import tuned_of
from aim.ground.errors import UserError
from aim.models.classifier import Backbone, terms_of
from aim.weights.hub import on_hub, parts_of

NAME = "README.md"  # as the hub shows it
TAGS = ["video-classification", "action-recognition", "aim-video"]
SHOWN = 50  # classes with a row of their own
OF_CLASS = {"right": "right", "average_precision": "average precision", "f1": "F1"}  # a task's score of a class


def result_of(saved: Checkpoint, given: str | Path | None) -> dict[str, Any]:
    """The result beside a checkpoint, or the `given` one of aim.eval. Raises UserError if it's of another model."""
    path = Path(given) if given is not None else saved.path.with_name("results.json")
    path = path / "results.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"{path} doesn't exist, and a card's numbers are from there: add results=FILE, the results.json of the "
            "training, or of python -m aim.eval"
        )
    found = results.read(path)
    identity = found.get("identity", {})
    another = identity.get("checkpoint", saved.fingerprint) != saved.fingerprint
    if another or found.get("trunk", {}).get("sha256") != saved.trunk["sha256"]:
        raise UserError(f"{path} is the result of another model than {saved.path}; give its own with results=FILE")
    return found


def card(saved: Checkpoint, found: Mapping[str, Any], *, name: str, address: str, licence: str | None) -> str:
    """The card of a checkpoint that is loaded from an `address`, with its result `found`."""
    trained = settings_of(saved)
    lines = [
        "---",
        yaml.safe_dump(front(saved, found, trained, name, licence), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {plain(name)}",
        "",
        f"Tells {len(saved.classes)} classes of videos apart: the adapter `{kind_of(saved)}` on the trunk "
        f"`{trained.backbone.name}`, {tuned_of(found['params_tuned'], found['params_total'])} parameters trained by "
        f"aim-video {found.get('versions', {}).get('aim-video', '')}.",
        "",
        *scores(saved, found),
        *made_for(saved, trained),
        *terms(trained, licence),
        *limits(saved, found, trained),
        *use(trained, address),
    ]
    return "\n".join(lines) + "\n"


def front(
    saved: Checkpoint, found: Mapping[str, Any], trained: Trained, name: str, licence: str | None
) -> dict[str, Any]:
    """The front matter; unknown entries are left out."""
    told = [each for each in metrics.told(found) if each.main and each.unit == "percent"]
    measured = [{"type": each.name, "name": each.words, "value": found[each.name]} for each in told]
    videos = {"name": f"{found['num_videos']} {content.kind(found)}videos", "type": found["data_hash"][:12]}
    task = {"type": "video-classification"}
    index = [{"name": name, "results": [{"task": task, "dataset": videos, "metrics": measured}]}]
    return {
        **({"license": licence} if licence else {}),
        "library_name": "aim-video",
        "pipeline_tag": "video-classification",
        **({"base_model": base} if (base := base_of(trained.backbone)) else {}),
        "tags": [*TAGS, kind_of(saved)],
        **({} if of_others(saved, found) else {"model-index": index}),
    }


def of_others(saved: Checkpoint, found: Mapping[str, Any]) -> bool:
    """Whether the scores are of other weights of the same training than the file's."""
    return "checkpoint" not in found and found["weights"] == "last" and bool(saved.chosen_by)


def scores(saved: Checkpoint, found: Mapping[str, Any]) -> Iterator[str]:
    """Scores beside those of one answer to all videos, and the role of the videos in the training."""
    baseline = baseline_of(found)
    yield from ("## Scores", "", "| score | this model | one answer to all videos |", "| --- | --- | --- |")
    for each in metrics.told(found):
        constant = f"{each.text(baseline[each.name])} ({each.constant_words})" if each.name in baseline else ""
        yield f"| {each.words} | {each.text(found[each.name])} | {constant} |"
    lists = ", ".join(f"{number} of {part}" for part, number in found.get("lists", {}).items())
    missing = f" ({found['num_missing']} more could not be read)" if found["num_missing"] else ""
    yield ""
    yield (
        f"On {found['num_videos']} {content.kind(found)}videos{missing} (list `{found['data_hash'][:12]}`; lists: "
        f"{lists or 'not noted'}), {found['views']} views, {found['precision']}. {choosing(saved, found)}"
    )
    for doubt in results.doubts(found, baseline):
        yield f"**{plain(doubt)}**"
    if len(each_class := found.get("per_class", {})) <= SHOWN:
        known = [key for key in OF_CLASS if any(key in one for one in each_class.values())]
        rows = [["class", "videos", *(OF_CLASS[key] for key in known)], ["---"] * (2 + len(known))]
        for label, one in each_class.items():
            rows.append([plain(label), str(one["videos"]), *(of_class(key, one) for key in known)])
        yield from ("", *(f"| {' | '.join(row)} |" for row in rows))
    yield ""


def of_class(key: str, one: Mapping[str, float]) -> str:
    """A score of a class in a table's cell: a count as it is, a share in percent, nothing where there is none."""
    return "" if key not in one else str(one[key]) if key == "right" else f"{100 * one[key]:.2f} %"


def choosing(saved: Checkpoint, found: Mapping[str, Any]) -> str:
    """Whether the videos of the scores chose anything, and whether the scores are those of the file's weights."""
    texts = []
    if of_others(saved, found):
        texts.append(
            "**These are scores of the training's last weights; the file holds those of the best validation**, which "
            "`python -m aim.eval checkpoint=FILE` tests."
        )
        if saved.chosen_by == found["data_hash"]:
            texts.append("The same videos chose the file's weights.")
    if chosen := content.chosen(found):
        texts.append(f"**The same videos chose {chosen}.**")
    elif not texts:
        texts.append("These videos chose nothing in training." if "chose" in found else "What they chose isn't noted.")
    if found.get("fits_temperature"):
        texts.append("The temperature is fitted on them.")
    return " ".join(texts)


def made_for(saved: Checkpoint, trained: Trained) -> Iterator[str]:
    """The table of the frames, pace and picture that the model expects."""
    clip, pace, backbone = trained.clip, saved.pace, trained.backbone
    apart = pace.apart(clip)
    stride = f", {clip.stride_frames} frames apart" if clip.sampling == "dense" else " over the whole video"
    usual = f"{pace.rate:.4g} frames a second" if pace.rate else "an unknown rate"
    lasting = f", of {pace.seconds:.2g} s" if pace.seconds else ""
    calibration = saved.calibration
    yield from ("## Made for", "", "| | |", "| --- | --- |")
    yield f"| frames | {clip.num_frames}{stride}" + (f": about {apart:.2g} s apart |" if apart else " |")
    yield f"| videos of the training | {usual}{lasting} (medians) |"
    yield f"| picture | {clip.size} x {clip.size} pixels, RGB, short side {trained.views.resize} |"
    yield f"| colours | mean {list(backbone.mean)}, std {list(backbone.std)}, of 0 to 1 |"
    yield f"| temperature | {json.dumps(calibration.temperature)} |"
    if calibration.thresholds:
        yield f"| thresholds | {json.dumps(calibration.thresholds)} |"
    yield f"| classes | {', '.join(map(plain, saved.classes))} |"
    yield ""


def terms(trained: Trained, licence: str | None) -> Iterator[str]:
    """The licences of the trunk's weights and of this model."""
    stated = terms_of(trained.backbone)
    yield from ("## Licence", "")
    yield f"Of the trunk's weights (`{trained.backbone.name}`): {stated or 'not known; look where they are from'}."
    if "nc" in stated.lower().replace("-", " ").split():
        yield "**It forbids commercial use of the trunk, and with it of this model.**"
    yield f"Of the trained weights: {licence or 'not stated'}."
    yield ""


def limits(saved: Checkpoint, found: Mapping[str, Any], trained: Trained) -> Iterator[str]:
    """Intended use, and the limits of the scores."""
    train = found.get("lists", {}).get("train")
    yield from ("## Intended use and limits", "")
    yield f"- To tell the {len(saved.classes)} classes above apart, in videos like those of its training" + (
        f", of which there were {train}." if train else "."
    )
    if not trained.task.several:
        yield "- It answers with one of them for any video; `min_probability` leaves doubtful answers out."
    yield "- Other cameras, places, people and rates were not tested unless the list above has them."
    yield "- Not for decisions about people without a test on videos of that place and purpose."
    yield ""


def use(trained: Trained, address: str) -> Iterator[str]:
    """Commands that load it."""
    own = trained.backbone.weights
    yield from ("## How to load it", "", "```sh")
    yield f"python -m aim.predict checkpoint={address} VIDEO"
    yield f"python -m aim.eval checkpoint={address} data.root=DIR"
    yield from ("```", "")
    published = {"pretrained": "are downloaded from timm's hub", "random": "are random"}
    where = published.get(own, f"are `{own if on_hub(own) or own.startswith('aim:') else Path(own).name}`")
    yield f"The file has the trained weights; the trunk's weights {where}, and `backbone.weights=FILE` names others."
    yield "They are compared with the trained ones by a hash."


def base_of(backbone: Backbone) -> str | None:
    """The repository of the trunk's published weights on the hub, where there is one."""
    if on_hub(backbone.weights):
        owner, name, _ = parts_of(backbone.weights, "backbone.weights", BEST)
        return f"{owner}/{name}"
    if backbone.weights == "random" or backbone.weights.startswith("aim:"):
        return None
    known = timm.get_pretrained_cfg(backbone.name, allow_unregistered=True)
    return known.hf_hub_id if known else None


def kind_of(saved: Checkpoint) -> str:
    """The public name of the adapter."""
    kind = str(saved.config["adapter"].get("kind", "own"))
    if kind != "plain":
        return kind
    return "full" if saved.config["adapter"].get("trainable") else "none"


def plain(text: str) -> str:
    """A name of somebody's as Markdown shows it, in a cell of a table, too."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
