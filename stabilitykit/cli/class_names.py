"""``--class-names``: a comma list, or a file with one name a line."""

from __future__ import annotations

from pathlib import Path

from stabilitykit.base.errors import DataProblem, UsageProblem

MOST_BYTES = 1 << 22


def read_class_names(given: str | None) -> list[str] | None:
    """The names in ``given``; None for None.

    Raises:
        UsageProblem: no names, an empty one, or one twice.
        DataProblem: a file that cannot be read as text.
    """
    if given is None:
        return None
    path = Path(given)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a list longer than a name of a file can be
        is_file = False
    if is_file:
        try:
            if path.stat().st_size > MOST_BYTES:
                raise DataProblem(f"--class-names: {path} is no list of names (over {MOST_BYTES >> 20} MiB)")
            names = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataProblem(f"--class-names: {path} cannot be read as UTF-8 text: {error}") from None
        while names and not names[-1].strip():
            names.pop()
    elif "," in given:
        names = given.split(",")
    else:
        raise UsageProblem(f"--class-names: {given} is no file, and no list with commas")
    names = [name.strip() for name in names]
    if len(names) < 2 or "" in names:
        place = f"; name {names.index('') + 1} is empty" if "" in names else ""
        raise UsageProblem(f"--class-names takes at least two names{place}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageProblem(f"--class-names: {twice!r} is given twice")
    return names
