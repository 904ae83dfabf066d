"""Reasons not to trust a map, in words."""

from aim.explain.explanation import Explanation

SURE = 0.5  # least probability of a confident answer
BETTER = 0.05  # of the probability: a smaller advantage over random maps may be chance
ALIKE = 0.7  # rank correlation from which on two maps show the same


def doubts(found: Explanation, true: str | None) -> list[str]:
    """The reasons against the map, a sentence each; `true` is the video's class in a list, if known."""
    return [text for text in (*of_answer(found, true), of_removal(found), of_likeness(found)) if text]


def of_answer(found: Explanation, true: str | None) -> list[str]:
    """Whether it explains a right and sure answer."""
    own = float(found.probability[found.label])
    if found.task.several:  # each label is separate
        doubt = f"the model hardly sees {found.name} ({100 * own:.0f} %), of which the map is"
        return [doubt] if own < SURE else []
    (answer, p), *others = found.top
    texts = []
    if found.name != answer:
        texts.append(
            f"the model's answer is {answer} ({100 * p:.0f} %), and the map is of {found.name} ({100 * own:.0f} %)"
        )
    elif p < SURE:
        next_ = f", then {others[0][0]} {100 * others[0][1]:.0f} %" if others else ""
        texts.append(f"the model is unsure: {answer} {100 * p:.0f} %{next_}; a map of a guess says little")
    if true is not None and true != answer:
        texts.append(f"the answer is wrong: the list says {true}; the map shows what misled the model")
    return texts


def of_removal(found: Explanation) -> str:
    """Whether its best cells have more weight than random ones."""
    if float(found.relevance.max()) <= 0:
        return f"the map is empty: no part of the clip speaks for {found.name}"
    (deletion, insertion), (chance_deletion, chance_insertion) = found.faithfulness.areas, found.chance
    least, failed = BETTER * float(found.probability[found.label]), []
    if deletion > chance_deletion - least:
        failed.append(
            f"removed, they lower the probability no further ({deletion:.2f}, by chance {chance_deletion:.2f})"
        )
    if insertion < chance_insertion + least:
        failed.append(f"put back, they raise it no higher ({insertion:.2f}, by chance {chance_insertion:.2f})")
    return f"the map's best cells are hardly better than random ones: {'; '.join(failed)}" if failed else ""


def of_likeness(found: Explanation) -> str:
    """Whether it shows the training."""
    name, value = max(found.similarity.items(), key=lambda pair: pair[1])
    if value < ALIKE:
        return ""
    return (
        f"the map hardly changes when the weights of the {name} are shuffled (likeness {value:+.2f}): "
        "it shows the frames and the frozen trunk more than the training"
    )
