"""The decisions of a run, image by image, against those of the network measured again."""

from __future__ import annotations

from collections.abc import Mapping

from stabilitykit.review.again import PairAgain
from stabilitykit.review.files import RunFiles
from stabilitykit.review.leaves import differences
from stabilitykit.review.verdicts import Uncovered, Verdict, Verification
from stabilitykit.runs.folder import DECISIONS, IMAGES_FILE

# Places of one file that differ are named one by one up to here.
LISTED = 40


def judge_decisions(found: Verification, files: RunFiles, pairs: Mapping[tuple[str, str], PairAgain | str]) -> None:
    """Add to ``found`` every decision that differs from today's, and what was not recomputed.

    Arguments:
        pairs: each (model, dataset) measured again, or why it could not be built.
    """
    known = set()
    for name, one in files.decided.items():
        key, file = (one.model, one.dataset), f"{DECISIONS}/{name}"
        known.add(key)
        pair = pairs.get(key, "it was not measured again")
        if isinstance(pair, str) or pair.decisions is None:
            why = pair if isinstance(pair, str) else "only witnesses were recomputed"
            found.uncovered.append(Uncovered(file, "", why))
            continue
        now = {**pair.decisions, "model": one.model, "dataset": one.dataset, "schema": files.schema}
        unlike = 0
        for difference in differences(files.decisions[name], now):
            reason = found.circumstances.judge(difference)
            if reason is None and found.circumstances.other_machine and _drifts(difference.path):
                reason = "a decision between two nearly equal readouts, which another machine moves"
            if reason:
                found.uncovered.append(Uncovered(file, difference.path, reason))
            elif reason is None:
                unlike += 1
                if unlike <= LISTED:
                    place = f"{file}: {difference.path}"
                    found.verdicts.append(Verdict(*key, "", place, "fails", message=difference.text))
        if unlike > LISTED:
            text = f"{unlike - LISTED} more places differ"
            found.verdicts.append(Verdict(*key, "", file, "fails", message=text))
    for key, pair in pairs.items():
        if key not in known and isinstance(pair, PairAgain) and pair.decisions is not None:
            found.uncovered.append(Uncovered(DECISIONS, "", f"no decisions of {key[0]} on {key[1]} are there"))
    if files.images is None:
        found.uncovered.append(Uncovered(IMAGES_FILE, "", "it is not there"))
    elif files.info.get("status") != "complete":
        found.uncovered.append(Uncovered(IMAGES_FILE, "", "the run is not complete"))


def _drifts(path: str) -> bool:
    """Is it a whole number that hangs on which of two readouts is larger?"""
    return path.startswith(("columns.prediction[", "columns.prediction_depth["))
