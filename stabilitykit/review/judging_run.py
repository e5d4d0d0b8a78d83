"""run.json against what was measured again: its pairs, its request, and where it was made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from stabilitykit.review.again import PairAgain
from stabilitykit.review.files import RunFiles
from stabilitykit.review.leaves import ABSENT, Difference, differences
from stabilitykit.review.plan import Plan
from stabilitykit.review.verdicts import Uncovered, Verdict, Verification
from stabilitykit.runs.folder import CSV_FILE, RUN_FILE
from stabilitykit.runs.times import STARTED, TIMES_FILE

MOVED = "read from another place than in the run"
KNOWN = {"schema", "status", "request", "provenance", "pairs", "cells"}
OTHER_CHECK = "this version checks the chain of blocks in another way"
# Parts of the request that stand in no record: no number depends on them (the first two decide what is refused).
INERT = ("any_classes", "uncertified", "probe_epochs", "probe_steps", "probe_dataset")


def judge_run(
    found: Verification,
    files: RunFiles,
    plan: Plan,
    pairs: Mapping[tuple[str, str], PairAgain | str],
    today: Mapping[str, Any],
) -> None:
    """Add to ``found`` what of run.json differs from today, and what was not recomputed.

    Arguments:
        pairs: each pair measured again, or why it could not be built.
        today: the provenance that a run of today would have.
    """
    stored = files.info.get("pairs")
    entries = stored if isinstance(stored, list) else []
    for number, entry in enumerate(entries):
        for place, difference, reason in _of_pair(entry, plan, pairs):
            if reason is None and found.circumstances.other_code and place.startswith("certificate."):
                reason = OTHER_CHECK
            path = f"pairs[{number}]" + (f".{place}" if place else "")
            if difference is None:
                found.uncovered.append(Uncovered(RUN_FILE, path, reason or ""))
            else:
                _note(found, path, difference, reason)
    expected = [key for key, pair in pairs.items() if isinstance(pair, PairAgain)]
    listed = [(e.get("model"), e.get("dataset")) for e in entries if isinstance(e, Mapping)]
    if [key for key in listed if key in expected] != expected:
        _fails(found, "pairs", f"lists {listed}, expected {expected}")
    request = files.info.get("request") or {}
    kept = ("models", "datasets", "properties", "probe_dataset", "device")
    asked = {**{kind: request.get(kind) for kind in kept}, **plan.settings.request()}
    if "objects" in request:
        asked["objects"] = request["objects"]  # those handed over now stand in their places
    for difference in differences(request, asked, "request"):
        _note(found, difference.path, difference, None)
    unknown = sorted(set(files.info) - KNOWN)
    if unknown and not found.circumstances.other_code:
        _fails(found, ", ".join(unknown), "no run has that")
    found.uncovered += _not_recomputed(files, plan, today)


def _of_pair(
    entry: Any, plan: Plan, pairs: Mapping[tuple[str, str], PairAgain | str]
) -> Iterator[tuple[str, Difference | None, str | None]]:
    """(path in the entry, what differs, why that does not count); no difference: the place was not recomputed."""
    if not isinstance(entry, Mapping):
        yield "", Difference("", entry, ABSENT), None
        return
    model, dataset = str(entry.get("model")), str(entry.get("dataset"))
    pair = pairs.get((model, dataset))
    if pair is None:
        yield "", Difference("", f"{model} on {dataset}", ABSENT), None
        return
    if isinstance(pair, str) or pair.certificate is None:
        yield "", None, pair if isinstance(pair, str) else "only witnesses were recomputed"
        return
    recorded = entry.get("record")
    record = as_recorded(pair.record, recorded if isinstance(recorded, Mapping) else {}, pair.former, model, dataset)
    now = {"model": model, "dataset": dataset, "certificate": pair.certificate, "record": record}
    now["warnings"] = pair.warnings
    for difference in differences(entry, now):
        yield difference.path, difference, MOVED if was_moved(plan, model, dataset, difference.path) else None


def was_moved(plan: Plan, model: str, dataset: str, path: str) -> bool:
    """Does ``path`` tell of the place of weights or data that are read from elsewhere now?"""
    return (model in plan.moved and path.startswith("record.model.details")) or (
        dataset in plan.moved and path.startswith("record.dataset.details")
    )


def as_recorded(
    record: Mapping[str, Any], recorded: Mapping[str, Any], former: Iterable[str], model: str, dataset: str
) -> dict[str, Any]:
    """The record of today with the labels of the run, and the fingerprint that the model had when it was made."""
    then = recorded.get("model")
    fingerprint = then.get("fingerprint") if isinstance(then, Mapping) else None
    own = {**record["model"], "spec": model}
    if fingerprint is not None and fingerprint in former:
        own["fingerprint"] = fingerprint
    return {**record, "model": own, "dataset": {**record["dataset"], "spec": dataset}}


def _not_recomputed(files: RunFiles, plan: Plan, today: Mapping[str, Any]) -> Iterator[Uncovered]:
    """What no computation gives again: times, where the run was made, and settings without effect."""
    yield Uncovered(TIMES_FILE, "", "when the run was made, by which command, and how long it took")
    for name in INERT[:2] if plan.settings.extraction.trained else INERT:
        yield Uncovered(RUN_FILE, f"request.{name}", "no number depends on it")
    for name in STARTED:
        if name in files.provenance:
            yield Uncovered(RUN_FILE, f"provenance.{name}", "how and when the run was started")
    for difference in differences(files.provenance, today):
        if difference.reported is not ABSENT and difference.path.partition("[")[0] not in STARTED:
            yield Uncovered(RUN_FILE, f"provenance.{difference.path}", "where the run was made; here is not like that")
    if files.csv is None:
        yield Uncovered(CSV_FILE, "", "it is not there")
    elif files.info.get("status") != "complete":
        yield Uncovered(CSV_FILE, "", "the run is not complete")


def _note(found: Verification, path: str, difference: Difference, reason: str | None) -> None:
    reason = reason if reason is not None else found.circumstances.judge(difference)
    if reason is None:
        _fails(found, path, replace(difference, path=path).text)
    elif reason:
        found.uncovered.append(Uncovered(RUN_FILE, path, reason))


def _fails(found: Verification, path: str, message: str) -> None:
    found.verdicts.append(Verdict("", "", "", f"run.json: {path}", "fails", message=message))
