"""aim-video: frozen image models adapted into video action recognisers.

For notebooks: `aim.load("runs/demo").predict_file("clip.mp4")`.
"""

TYPE_CHECKING = False  # typing takes an import, and this is all that `import aim` costs
if TYPE_CHECKING:
    from collections.abc import Sequence

    from aim.engine.trained.recogniser import Recogniser


def load(
    path: str,
    *,
    weights: str | None = None,
    device: str = "cpu",
    trust: bool = False,
    calibrated: bool = True,
    threads: int | None = None,
    classes: "Sequence[str] | None" = None,
    prompts: "Sequence[str] | None" = None,
) -> "Recogniser":
    """A trained model from its run directory, its best.safetensors, or a file of aim.export.

    `weights` says where the trunk lies, if elsewhere than in training. Probabilities are `calibrated` by the file's
    temperature, as aim.predict's are, or else those of a test. On a CPU torch computes with so many `threads` from here
    on: 1 where others compute, too (docs/speed.md). With `classes` these take the place of its own, told by their
    names in `prompts`, as a CLIP can (docs/predict.md). Raises UserError for a file that is missing or damaged, and for
    another trunk. Nothing heavy is imported before it is called.
    """
    from aim.ground.threads import spin_briefly

    spin_briefly()  # which torch hears of where it isn't imported yet
    from aim.engine.machine.hardware import use_threads
    from aim.engine.trained.recogniser import load as rebuild

    use_threads(threads)
    return rebuild(
        path, weights=weights, device=device, trust=trust, calibrated=calibrated, classes=classes, prompts=prompts
    )
