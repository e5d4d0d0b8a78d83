"""What a plugin registers: the *name* of a thing ("module:attribute"), never the thing, so listing stays cheap."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from stabilitykit.base.errors import PluginProblem, UsageProblem, catching, describe
from stabilitykit.base.names import did_you_mean, imported

ComponentKind = Literal["model", "dataset", "property"]
KINDS: tuple[ComponentKind, ...] = ("model", "dataset", "property")


@dataclass(frozen=True)
class Option:
    """One option of a component, given as ``name=value`` on the command line or as a key in a config file.

    Attributes:
        name: snake_case.
        type: ``str``, ``int``, ``float``, ``bool``, ``path`` (as strings), ``ints`` (``2-2-2-2``) or ``floats``
            (``0.5,0.4,0.3``).
        default: used when the option is not given; ``required`` options have none.
        help: one line.
        choices: allowed values, if closed.
        minimum, maximum: inclusive range for numbers.
        required: the component cannot be built without it.
        pattern: regular expression that the whole text matches, so that a slip is found before anything heavy runs.
        words: the text is a list of some of these, separated by + or spaces (see :func:`words_of`).
        formerly: (schema, default): what leaving the option out meant in runs recorded under that schema or an older
            one, so that they are rebuilt as they were made.
    """

    name: str
    type: Literal["str", "int", "float", "bool", "path", "ints", "floats"] = "str"
    default: Any = None
    help: str = ""
    choices: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False
    pattern: str = ""
    words: tuple[str, ...] | None = None
    formerly: tuple[int, Any] | None = None

    def parse(self, value: Any, owner: str) -> Any:
        """``value`` (a string or already typed) converted and checked; UsageProblem if it does not fit."""
        try:
            parsed = self._convert(value)
        except (TypeError, ValueError):
            raise UsageProblem(f"{owner}: option {self.name} expects {self.type}, got {value!r}") from None
        if parsed is None:
            return None
        if self.choices is not None and parsed not in self.choices:
            allowed = ", ".join(map(str, self.choices))
            raise UsageProblem(f"{owner}: option {self.name} is one of {allowed}; got {value!r}")
        if self.words is not None:
            words_of(parsed, self.words, f"{owner}: option {self.name}")
        if self.pattern and not re.fullmatch(self.pattern, str(parsed)):
            raise UsageProblem(f"{owner}: option {self.name} expects {self.help or self.pattern}; got {value!r}")
        if isinstance(parsed, (int, float)) and not isinstance(parsed, bool):
            if parsed != parsed:
                raise UsageProblem(f"{owner}: option {self.name} is NaN")
            if (self.minimum is not None and parsed < self.minimum) or (
                self.maximum is not None and parsed > self.maximum
            ):
                low = "-inf" if self.minimum is None else self.minimum
                high = "inf" if self.maximum is None else self.maximum
                raise UsageProblem(f"{owner}: option {self.name} lies in [{low}, {high}]; got {value!r}")
        return parsed

    def _convert(self, value: Any) -> Any:
        if value is None or (isinstance(value, str) and value.lower() in {"none", "null"} and self.default is None):
            return None
        if self.type == "bool":
            if isinstance(value, bool):
                return value
            text = str(value).strip().lower()
            if text in {"1", "true", "yes", "on"}:
                return True
            if text in {"0", "false", "no", "off"}:
                return False
            raise ValueError(value)
        if self.type == "int":
            if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
                raise ValueError(value)
            return int(value)
        if self.type == "float":
            if isinstance(value, bool):
                raise ValueError(value)
            return float(value)
        if self.type == "ints":
            parts = str(value).replace("-", " ").replace("x", " ").split() if isinstance(value, str) else value
            if isinstance(parts, int):
                parts = [parts]
            return tuple(int(p) for p in parts)
        if self.type == "floats":
            parts = re.split(r"[\s,]+", value.strip(" ()[]")) if isinstance(value, str) else value
            return tuple(float(p) for p in ([parts] if isinstance(parts, (int, float)) else parts) if p != "")
        return str(value)


def words_of(text: Any, known: Sequence[str], owner: str) -> list[str]:
    """The words of a list in one text, each once.

    Arguments:
        text: words separated by + or spaces.
        known: the words there are.

    Raises:
        UsageProblem: none is given, or one is not known; ``owner`` says whose list it is.

    Examples:
        >>> words_of("fp16+bf16 fp16", ("bf16", "fp16"), "precision: formats")
        ['fp16', 'bf16']
    """
    words = list(dict.fromkeys(str(text).replace("+", " ").split()))
    for word in words:
        if word not in known:
            raise UsageProblem(f"{owner}: unknown {word!r}{did_you_mean(word, known)}; there are {', '.join(known)}")
    if not words:
        raise UsageProblem(f"{owner}: one or more of {', '.join(known)}, separated by + or spaces; got {text!r}")
    return words


@dataclass(frozen=True)
class Component:
    """A registered model, dataset or property.

    Attributes:
        kind: ``"model"``, ``"dataset"`` or ``"property"``.
        name: what users type; unique per kind (a clash is an error that names both distributions).
        target: ``"package.module:attribute"``, imported only when the component is used. Called with the
            parsed options as keyword arguments it returns a Model, Dataset or Property.
        summary: one line for ``list``.
        options: the options schema.
        primary: option fed by a bare value, so that ``timm:resnet50`` means ``timm:name=resnet50``.
        reference: where the thing is defined ("Definition 1").
        needs: for properties, the names of other properties whose results it reads; when one fails, so does it.
        wants: the same, but it is evaluated without the results of those that failed.
        distribution, version: filled in by the loader.
        runs_code: building it imports and runs code that an option names; a run folder may not ask for that unasked.
        free: keyword argument that receives, as a mapping of texts, all options that are not listed; the target checks
            them. Empty: others are refused.
    """

    kind: ComponentKind
    name: str
    target: str
    summary: str
    options: Sequence[Option] = ()
    primary: str | None = None
    reference: str = ""
    needs: Sequence[str] = ()
    wants: Sequence[str] = ()
    distribution: str = ""
    version: str = ""
    runs_code: bool = False
    free: str = ""

    def option_values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All option values: defaults overlaid with ``given``, parsed and checked.

        Raises:
            UsageProblem: an unknown option, a required one that is absent, or a value of the wrong type.
        """
        known = {option.name: option for option in self.options}
        owner = f"{self.kind} {self.name}"
        others = {key: given[key] for key in given if key not in known}
        for key in others:
            if not self.free:
                raise UsageProblem(
                    f"{owner}: unknown option {key!r}{did_you_mean(key, known)}; options: {', '.join(known) or 'none'}"
                )
        values = {}
        for name, option in known.items():
            if name in given:
                values[name] = option.parse(given[name], owner)
            elif option.required:
                raise UsageProblem(f"{owner}: option {name} is required ({option.help or option.type})")
            else:
                values[name] = option.default
        if self.free:
            values[self.free] = others
        return values

    def option_type(self, name: str) -> str:
        """Type of the option ``name``; empty where there is none of that name."""
        return next((option.type for option in self.options if option.name == name), "")

    def load(self) -> Any:
        """Import the target; PluginProblem naming the distribution when that fails."""
        with catching() as caught:
            return imported(self.target)
        assert caught.error is not None
        raise PluginProblem(
            f"{self.kind} {self.name}: cannot import {self.target} of {self.owner}: {describe(caught.error)}"
        ) from caught.error

    @property
    def owner(self) -> str:
        return f"{self.distribution or 'unknown distribution'} {self.version}".strip()

    def owned_by(self, distribution: str, version: str) -> Component:
        return replace(self, distribution=distribution, version=version)


@dataclass(frozen=True)
class Adapter:
    """How an object given in Python becomes a Model, a Dataset or a Property.

    Attributes:
        accepts: ``"module.Class"`` as the class says itself; objects of classes derived from it are taken, too.
        component: what makes it. The target is called with the object, then the options as keyword arguments, one of
            which is ``name`` (not listed): what results call it. The component's own name stands in messages only.
    """

    accepts: str
    component: Component

    @property
    def kind(self) -> ComponentKind:
        return self.component.kind


@dataclass(frozen=True)
class Command:
    """A CLI command a plugin adds: ``target`` names a click.Command, imported only when it is run."""

    name: str
    target: str
    summary: str
    distribution: str = ""
    version: str = ""


@dataclass(frozen=True)
class ReportSection:
    """A section of the HTML report: ``target`` names ``render(run: RunData) -> str | None`` (HTML or nothing)."""

    name: str
    title: str
    target: str
    order: int = 100
    distribution: str = ""
    version: str = ""
