"""Open a data set of the package datasets: nothing is fetched, and no code of a data set is run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stabilitykit import DataProblem, UsageProblem
from stabilitykit.base.errors import describe
from stabilitykit.base.names import did_you_mean

_SHARD = re.compile(r"-\d{2,}-of-\d{2,}$")


def package() -> Any:
    """The package datasets; UsageProblem that says how to get it where it is missing."""
    try:
        import datasets
    except ImportError as error:
        raise UsageProblem(
            f"hf: data sets need the package datasets ({error}): pip install 'stabilitykit[datasets]'"
        ) from None
    return datasets


def opened(path: str, split: str | None, download: bool) -> tuple[Any, str]:
    """(the rows, name of the split).

    Raises:
        DataProblem: a folder that holds no data set, or a damaged one.
        UsageProblem: no such folder and no leave to fetch it; several splits and none chosen.
    """
    datasets = package()
    folder = Path(path)
    if not folder.is_dir():
        if not download:
            what = "is a file" if folder.exists() else "does not exist"
            raise UsageProblem(
                f"hf: {path} {what}; give a folder that save_to_disk wrote or one of Parquet files (ORG/NAME of the "
                "hub is fetched with --download only)"
            )
        return _fetched(datasets, path, split)
    saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        found = datasets.load_from_disk(str(folder)) if saved else _parquet(datasets, folder)
    except (DataProblem, UsageProblem):
        raise
    except Exception as error:  # Arrow, JSON and the library itself: many kinds
        raise DataProblem(f"hf: {path} cannot be read: {describe(error, 300)}") from None
    if isinstance(found, Mapping):
        name = chosen(split, list(found), path)
        return found[name].with_format(None), name
    if split is not None:
        raise UsageProblem(f"hf: {path} is one data set without splits; leave split={split} out")
    return found.with_format(None), ""


def chosen(split: str | None, names: list[str], path: str) -> str:
    """The split to take: the one asked for, or the only one."""
    listed = ", ".join(names)
    if split is None and len(names) == 1:
        return names[0]
    if split is None:
        raise UsageProblem(f"hf: {path} holds the splits {listed}; say which, e.g. split={names[-1]}")
    if split not in names:
        raise UsageProblem(f"hf: {path} has no split {split!r}{did_you_mean(split, names)}; it holds {listed}")
    return split


def _parquet(datasets: Any, folder: Path) -> dict[str, Any]:
    """Split -> rows of the Parquet files below a folder, named as hubs name them (``train-00000-of-00002``)."""
    import pyarrow
    import pyarrow.parquet

    root = folder.resolve()
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        if not file.resolve().is_relative_to(root):
            raise DataProblem(f"hf: {file} is a link out of {folder}; that is not followed")
        files.setdefault(_SHARD.sub("", file.stem), []).append(file)
    if not files:
        raise DataProblem(
            f"hf: {folder} holds neither what save_to_disk writes nor a Parquet file (images by class: imagefolder:)"
        )
    tables = {
        name: pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in group])
        for name, group in files.items()
    }
    return {name: datasets.Dataset(table) for name, table in tables.items()}


def _fetched(datasets: Any, path: str, split: str | None) -> tuple[Any, str]:
    try:
        name = chosen(split, list(datasets.get_dataset_split_names(path)), path)
        return datasets.load_dataset(path, split=name).with_format(None), name
    except UsageProblem:
        raise
    except Exception as error:
        raise UsageProblem(f"hf: {path} cannot be fetched: {describe(error, 300)}") from None
