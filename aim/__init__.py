"""aim-video: frozen image models adapted into video action recognisers.

For notebooks: `aim.load("runs/demo").predict_file("clip.mp4")`.
"""

TYPE_CHECKING = False  # typing takes an import, and this is all that `import aim` costs
if TYPE_CHECKING:
    from aim.engine.trained.recogniser import Recogniser


def load(
    path: str, *, weights: str | None = None, device: str = "cpu", trust: bool = False, calibrated: bool = True
) -> "Recogniser":
    """A trained model from its run directory, its best.safetensors, or a file of aim.export.

    `weights` says where the trunk lies, if elsewhere than in training. Probabilities are `calibrated` by the file's
    temperature, as aim.predict's are, or else those of a test. Raises UserError for a file that is missing or damaged,
    and for another trunk. Nothing heavy is imported before it is called.
    """
    from aim.engine.trained.recogniser import load as rebuild

    return rebuild(path, weights=weights, device=device, trust=trust, calibrated=calibrated)
