"""The run directory before a training starts: empty, with the result of this run, or with a run to continue."""

from aim.engine.loop import choice
from aim.engine.machine.distributed import say_once
from aim.engine.run import content, identity, replaced, results
from aim.engine.run.job import Checked, Earlier
from aim.engine.run.settings import Run
from aim.engine.run.sizing import goes_on, shorter
from aim.engine.run.splitting import followed
from aim.engine.trained import checkpoint
from aim.ground import config


def taken_up(checked: Checked[Run]) -> Earlier:
    """The precision and division of a continued run; a finished run's result is shown.

    A run keeps its precision on every machine, and has no more clips at once on a rank, unless another division is
    given. Permitted differences are printed on stderr. Raises UserError if the folder holds another run.
    """
    run, run_dir = checked.run, checked.run_dir
    last, done = identity.last_of(run_dir), run_dir / "results.json"
    if not (last.exists() or done.exists()):
        if (other := shorter(run)) != run_dir and identity.earlier(other):
            say_once(f"this is a separate run; to continue the one in {other}, add run_dir={other}")
        run.check_batch(checked.ranks)
        return Earlier()
    found = results.read(done) if done.exists() else checkpoint.load_last(last, quiet=True)
    changed = identity.changes(config.load(run_dir / "config.yaml"), checked.settings, run_dir)
    resized = any(text.startswith(f"{identity.LENGTH} ") for text in changed)
    finished = done.exists() and not resized
    if resized:
        found = checkpoint.load_last(last, quiet=True)
    now = dict(checked.content)
    if chooses := last.parent != run_dir:
        now |= choice.content_of(choice.choosing(checked.lists, run.train.choose)[0], checked.settings)
    if any(text.startswith(identity.CONTENT) for text in changed):
        start = checked.start.fingerprint if checked.start else None
        now |= content.of_weights(run.model(len(checked.lists.classes)).fingerprint, start)
    content.check_same(found, now, run_dir)
    if text := str(replaced.changes(run_dir, run.data.folder, checked.lists.videos)):
        say_once(f"warning: {run_dir} is a run that began earlier; {text}")
    if finished:
        results.show(found, run_dir)
        print(f"This run was already finished; to train again, delete {run_dir} or set run_dir=DIR.")
    if resized and not chooses:
        changed.append(goes_on(run, found["step"], checked.lists))
    if changed:
        say_once(f"the run {'is this' if finished else 'continues'}, though {'; '.join(changed)}")
    if finished:
        return Earlier(finished=True)
    # config.yaml may be of a command that was killed before its first save.
    split_anew = found.get("accumulate") != run.train.accumulate
    clips = None if split_anew else found.get("clips")
    parts = followed(run, checked.ranks, clips).train.accumulate
    return Earlier(precision=found.get("identity", {}).get("precision"), clips=clips, accumulate=parts)
