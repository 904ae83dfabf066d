"""The start of a training from class names: head=text."""

from contextlib import closing

import torch
from torch import Tensor

from aim.engine.loop.evaluation import Evaluation, evaluate
from aim.engine.machine import distributed
from aim.engine.run.job import Job
from aim.engine.run.settings import Run
from aim.ground.signals import Stop
from aim.models.classifier import VideoClassifier
from aim.models.zero_shot import ZeroShotHead
from aim.weights.text import class_texts


def start_from_text(job: Job[Run], model: VideoClassifier, stop: Stop) -> Evaluation:
    """Let the head begin as CLIP's class texts, and say how it does on the validation without training.

    The lengths of features that the linear head takes for given are those of the validation videos; no label is used.
    Raises a validation's errors, and UserError without a text tower.
    """
    run, world, linear = job.run, job.world, model.head
    with world.first_on_node():  # for a download
        texts = class_texts(run.backbone.text, run.backbone.weights, job.lists.classes, run.prompts)
    head = ZeroShotHead(texts).to(world.device, linear.weight.dtype)
    lengths = list[Tensor]()
    hook = head.register_forward_pre_hook(lambda _, features: lengths.append(head.projected(features[0]).norm(dim=-1)))
    model.head = head  # type: ignore[assignment]
    with closing(run.eval_loader(run.val_dataset(job.lists), world)) as loader:
        found = evaluate(
            model, loader, task=run.task, device=world.device, precision=run.precision, stop=stop, title="zero-shot"
        )
    hook.remove()
    model.head = linear
    mine = torch.cat(lengths) if lengths else torch.zeros(0)
    ranks = distributed.gather((float(mine.sum()), len(mine)))
    head.start(linear, sum(total for total, _ in ranks) / sum(count for _, count in ranks))
    if world.is_main:
        metrics = [each for each in run.task.metrics if each.main]
        told = ", ".join(f"{each.validated_words} {each.text(found.scores[str(each.validated)])}" for each in metrics)
        print(f"zero-shot: {told}, by the names of the classes before any training", flush=True)
    return found
