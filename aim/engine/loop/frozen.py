"""The features of a frozen trunk in place of pixels: computed once, before a training or a test reads them."""

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from aim.data.dataset import VideoDataset
from aim.data.loading.order import LISTED
from aim.data.stored.features import GB, IN_MEMORY, Draws, Kept, keys_of, store_of
from aim.data.transforms import Views
from aim.engine.machine import distributed
from aim.engine.machine.distributed import World
from aim.engine.machine.feeding import one_late, through
from aim.engine.machine.hardware import autocast
from aim.engine.run.settings import Run
from aim.ground.console import SLOW, Display
from aim.ground.errors import UserError
from aim.ground.signals import Interrupted, Stop
from aim.models.classifier import VideoClassifier

VERSION = 3  # of what a store's files hold


@contextmanager
def on_features(
    dataset: VideoDataset, model: VideoClassifier, run: Run, world: World, stop: Stop
) -> Iterator[VideoDataset]:
    """The data set as the model is to read it: as it is, or as features that are computed where they are missing.

    The ranks share the work. Features that are there when a signal comes are kept. Raises Interrupted then, UserError
    if there is no room for the features, and a training's errors for bad videos.
    """
    if run.train.features != "cached":
        yield dataset
        return
    keys = distributed.share(keys_of(dataset.root, dataset.videos) if world.is_main else {})
    views = isinstance(dataset.transform, Views)
    stored = torch.float32 if run.precision == "fp32" else torch.float16
    if not model.layout:
        with autocast(world.device, run.precision):
            model.frozen(torch.zeros(1, 3, model.num_frames, model.size, model.size, device=world.device))
    size = sum(shape.numel() for shape in model.layout)
    store = store_of(
        {
            "version": VERSION, "trunk": replace(run.backbone, weights=fingerprint_of(model)),
            "layout": list(map(tuple, model.layout)), "clip": run.clip,
            "transform": dataset.transform, "reader": dataset.reader, "precision": run.precision,
            "seed": None if views else run.seed,
            "draws": None if views else run.train.draws,
        }
    )  # fmt: skip
    kept = Kept(
        **(vars(dataset) | {"cache": None}), keys=keys, store=store, size=size, stored=stored, draws=run.train.draws
    )
    with store.held():
        bad = computed(kept, dataset, model, run, world, stop)
        few = len(dataset) * kept.video_bytes <= IN_MEMORY
        yield replace(kept, bad={**dataset.bad, **bad}, store=replace(store, memory={} if few else None))


def computed(
    kept: Kept, dataset: VideoDataset, model: VideoClassifier, run: Run, world: World, stop: Stop
) -> dict[str, str]:
    """Compute the missing features of all videos, each on one rank. Returns the bad videos by their path."""
    views = isinstance(dataset.transform, Views)
    known = {
        kept.keys[video]: video for video in dataset.videos if video in kept.keys and video.path not in dataset.bad
    }
    # One rank looks into the store, and all do the same.
    missing = distributed.share([v for key, v in known.items() if not kept.store.has(key)] if world.is_main else [])
    if not missing:
        return {}
    pixels = Draws(**(vars(dataset) | {"videos": missing}), keys=kept.keys)
    pixels = pixels if views else replace(pixels, clips=run.train.draws)
    clips, what = pixels.shape[0], "views" if views else "draws"
    needed = len(missing) * kept.video_bytes
    if world.is_main:
        kept.store.make_room(needed, run.train.features_gb * GB)
        print(
            f"features: {len(missing)} of {len(known)} videos x {clips} {what} go through the trunk once, "
            f"{needed / GB:.2f} GB in {kept.store.folder}",
            flush=True,
        )
    at_once = max(1, run.train.clips_at_once(world.size) // clips)
    training = {} if views else {"step_size": at_once * world.size}
    policy = run.data.eval_on_error if views else run.data.on_error
    # Of a part of the list, bad videos that are skipped are noted here; the share of all is what `data.max_bad` judges.
    noting = replace(run, data=replace(run.data, max_bad=1.0 if policy == "skip" else run.data.max_bad))
    loader = noting.loader(pixels, at_once, world, order=LISTED, on_error=policy, **training)
    total, done, stopped = len(missing), 0, False
    was_training = model.training
    model.eval()

    @torch.inference_mode()
    def features_of(video: Tensor) -> Tensor:
        with autocast(world.device, run.precision):
            return model.frozen(model.preprocess(video))

    with closing(loader), Display("features", total, visible=world.is_main, hint=SLOW, concludes=True) as display:
        for index, weight, features in one_late(through(loader.epoch(0), world.device, features_of)):
            for i, was_read, rows in zip(index.tolist(), weight.tolist(), features.to(kept.stored), strict=True):
                if was_read:
                    seconds = loader.seconds.get(i, np.full((clips, 2), np.nan, np.float32))
                    kept.store.write(kept.keys[missing[i]], rows, seconds)
            done += len(index) * world.size
            display.update(min(done, total), "videos")
            if stopped := bool(stop):
                break
    model.train(was_training)
    distributed.meet()
    ranks = distributed.gather((dict(loader.bad), stopped))
    if any(stopped for _, stopped in ranks):
        raise Interrupted("stopped by a signal while features were computed; those that are there are kept")
    reasons = {path: reason for bad, _ in ranks for path, reason in bad.items()}
    lost = {kept.keys[video]: reasons[video.path] for video in missing if video.path in reasons}
    found = {
        video.path: lost[key] for video in dataset.videos if (key := kept.keys.get(video, "")) in lost
    }  # copies, too
    if len(found) > run.data.max_bad * len(dataset.videos):
        raise UserError(
            f"{len(found)} of {len(dataset.videos)} videos could not be read, more than "
            f"data.max_bad={run.data.max_bad:g}, such as {next(iter(found.values()))}; fix or remove them, or raise it"
        )
    return found


def fingerprint_of(model: VideoClassifier) -> str:
    """The trunk's, or the hash of all that isn't trained where its weights are of no file: `init` may have given it."""
    if model.given:
        return model.fingerprint
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name not in model.trainable:
            found.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()
