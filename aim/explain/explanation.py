"""An explanation of a model's decision on one clip: a map, its faithfulness, and the effect of the order of frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from aim.engine.machine.hardware import Precision, autocast
from aim.engine.scores.tasks import SINGLE_LABEL, Task
from aim.engine.trained.recogniser import Recogniser
from aim.explain import order, scores
from aim.explain.gradients import gradient_x_activation
from aim.explain.occlusion import Decision, Grid, blurred, grid, of_space_time, of_time
from aim.explain.scores import STEPS, Faithfulness
from aim.models.classifier import VideoClassifier

Method = Literal["occlusion", "gradient"]
SHUFFLES = 8
CHANCES = 4  # random maps for the comparison of faithfulness
RANDOMISED = ("head", "head and adapters")


@dataclass(frozen=True)
class Explanation:
    """The reasons for a decision for `label`. Shapes: n m o cells along t, h and w; r orders, k classes."""

    clip: Tensor  # uint8 "t c h w"
    classes: Sequence[str]
    label: int
    probability: Tensor  # "k"
    grid: Grid
    relevance: Tensor  # "n m o"
    frames: Tensor  # "n'": the evidence lost when each cell of time of `steps` stands still
    steps: Sequence[int]  # the first frames of these, and the end
    faithfulness: Faithfulness
    chance: tuple[float, float]  # the areas of deletion and insertion of random maps
    similarity: dict[str, float]  # rank correlation with the map of the model with randomised ...
    orders: Tensor  # "r k"
    task: Task = SINGLE_LABEL
    doubts: Sequence[str] = ()  # reasons not to trust the map (aim.explain.doubts)

    @property
    def name(self) -> str:
        """The explained class."""
        return self.classes[self.label]

    @property
    def top(self) -> list[tuple[str, float]]:
        """The five most probable classes."""
        best = self.probability.argsort(descending=True)[:5].tolist()
        return [(self.classes[i], float(self.probability[i])) for i in best]

    def as_json(self) -> dict[str, Any]:
        """All but the clip, as plain values."""
        deletion, insertion = self.faithfulness.areas
        return {
            "label": self.name,
            "probability": rounded(self.probability[self.label]),
            "labels": [{"label": name, "probability": round(p, 4)} for name, p in self.top],
            "frames": {"begin": [*self.steps[:-1]], "evidence_lost": rounded(self.frames)},
            "map": {"shape": [*self.grid.shape], "relevance": rounded(self.relevance)},
            "deletion": {"area": round(deletion, 4), "by_chance": round(self.chance[0], 4)},
            "insertion": {"area": round(insertion, 4), "by_chance": round(self.chance[1], 4)},
            "similarity_to_randomised": {name: round(value, 4) for name, value in self.similarity.items()},
            "doubts": [*self.doubts],
            "order": orders_as_json(self.orders, self.label, self.classes, self.task),
        }


def orders_as_json(orders: Tensor, label: int, classes: Sequence[str], task: Task) -> dict[str, Any]:
    """The answers in each order of frames, of probabilities "r k": the probability of a class, and the answer."""
    return {
        name: {"label": classes[int(task.best(p))], "probability": rounded(p[label])}
        for name, p in zip(order.ORDERS, orders, strict=True)
    }


def rounded(values: Tensor) -> Any:
    """The numbers as nested lists, with four digits behind the point."""
    return (values.double() * 1e4).round().div(1e4).tolist()


def explain(
    recogniser: Recogniser,
    clip: Tensor,
    label: int,
    *,
    method: Method,
    cells: int,
    batch_size: int,
    precision: Precision,
    passed: Callable[[int], object] = lambda clips: None,
) -> Explanation:
    """Explain the decision for a class on a clip, uint8 "t c h w"; `passed` gets the numbers of processed clips."""
    model, task = recogniser.model, recogniser.task
    assert isinstance(model, VideoClassifier), "an exported program can't be randomised"
    coarse, fine = grids(model, method, cells)

    def deciding(seen: VideoClassifier, on: Grid) -> Decision:
        def predict(video: Tensor) -> Tensor:
            passed(len(video))
            return replace(recogniser, model=seen).predict(video, precision)

        return Decision(predict, clip, label, on, blurred(clip), batch_size, task)

    def relevance_to(seen: VideoClassifier) -> Tensor:
        if method == "occlusion":
            return of_space_time(deciding(seen, fine))
        with autocast(recogniser.device, precision):
            return gradient_x_activation(seen, clip, label, task)

    decision, relevance = deciding(model, fine), relevance_to(model)
    head = [name for name in model.trainable if name.startswith("head.")]
    forgotten = {
        name: scores.randomised(model, names, seed=0)
        for name, names in zip(RANDOMISED, (head, model.trainable), strict=True)
    }
    orders = order.of_clip(decision.predict, clip, SHUFFLES)
    return Explanation(
        clip=clip,
        classes=recogniser.classes,
        label=label,
        probability=orders[0],
        grid=fine,
        relevance=relevance,
        frames=of_time(deciding(model, coarse)),
        steps=coarse.borders[0],
        faithfulness=scores.faithfulness(decision, relevance),
        chance=scores.by_chance(decision, CHANCES),
        similarity={name: scores.spearman(relevance, relevance_to(other)) for name, other in forgotten.items()},
        orders=orders,
        task=task,
    )


def num_passes(model: VideoClassifier, method: Method, cells: int) -> int:
    """The model's clips for an explanation, without the few with a gradient."""
    coarse, fine = grids(model, method, cells)
    maps = (1 + len(fine.windows())) * (1 + len(RANDOMISED)) if method == "occlusion" else 0
    return maps + 1 + coarse.shape[0] + 2 * (STEPS + 1) * (1 + CHANCES) + len(order.ORDERS) + SHUFFLES


def grids(model: VideoClassifier, method: Method, cells: int) -> tuple[Grid, Grid]:
    """The cells of time for standing still, and those of the map."""
    pixels, tokens = (model.num_frames, model.size, model.size), model.backbone.grid
    coarse = grid(pixels, tokens, cells)
    return coarse, coarse if method == "occlusion" else grid(pixels, tokens)
