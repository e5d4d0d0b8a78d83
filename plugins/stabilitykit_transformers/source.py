"""The model component ``transformers``: an image classifier as ``save_pretrained`` wrote it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.adapting import View, adapt
from stabilitykit_adapters.modules import declared_shape
from stabilitykit_adapters.pixels import Pixels, plain_preprocess
from stabilitykit_adapters.source import NetworkSource, quietly
from torch import nn

from stabilitykit import DataProblem, UsageProblem
from stabilitykit.base.errors import describe
from stabilitykit.base.progress import without_bar_threads
from stabilitykit_transformers.processor import image_processor, prepared

T = TypeVar("T")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class TransformersSource(NetworkSource):
    """``transformers:FOLDER``."""

    def __call__(self, folder: str, *, download: bool = False, **options: Any) -> AdaptedModel:
        """The classifier in a folder. Options as listed in the plugin's schema.

        Raises:
            UsageProblem: the package is missing, no folder, an architecture it does not know or that asks to run code.
            DataProblem: weights that are pickled, missing or do not fill the network.
            CellProblem: a network that cannot be recorded.
        """
        name = f"transformers:{folder}"
        pixels, view = Pixels.taken(options), View.taken(options)
        usual = pixels.statistics(name, None)  # a slip is found before the network is built
        package = _package()
        _require_files(folder, download)
        config = _config(package, folder, download, name)
        module = _weighted(package, folder, config, download, name)
        record: dict[str, Any] = {
            "architecture": type(module).__name__,
            "weights": "downloaded" if not Path(folder).is_dir() else f"{folder}, as save_pretrained wrote them",
            "transformers": package.__version__,
            "stored_as": str(getattr(config, "dtype", None) or "float32").removeprefix("torch."),
        }
        names = class_names(config)
        if names is not None:
            record["class_names"] = names
        processor = image_processor(package, folder, download, name)
        if processor is None:
            shape = declared_shape(module)
            preprocess, preprocessing = plain_preprocess(shape, pixels, pixels.size is not None, name)
            if usual is None:
                record["warnings"] = [
                    "no preprocessor_config.json: pixels in [0, 1] are taken as they are (mean=, std= or normalise= "
                    "say otherwise)"
                ]
        else:
            shape, preprocess, preprocessing = prepared(processor, pixels, declared_shape(module), name)
        return adapt(
            module, shape, name=name, preprocess=preprocess, preprocessing=preprocessing, view=view, record=record
        )

    def outline(self, folder: str, *, download: bool = False, **options: Any) -> tuple[nn.Module, tuple[int, ...]]:
        package, name = _package(), f"transformers:{folder}"
        _require_files(folder, download)
        config = _config(package, folder, download, name)
        with torch.device("meta"):
            module = _tried(name, lambda: package.AutoModelForImageClassification.from_config(config))
        return module, declared_shape(module)


transformers_model = TransformersSource()


def class_names(config: Any) -> list[str] | None:
    """Names of the classes by ``id2label``; None where they only count (LABEL_0, LABEL_1...)."""
    found = {int(key): str(value) for key, value in (getattr(config, "id2label", None) or {}).items()}
    names = [found.get(n) for n in range(len(found))]
    if any(text is None for text in names) or all(text == f"LABEL_{n}" for n, text in enumerate(names)):
        return None
    return [str(text) for text in names]


def _package() -> Any:
    """The package transformers; UsageProblem that says how to get it where it is missing."""
    try:
        import transformers
    except ImportError as error:
        raise UsageProblem(
            f"transformers: models need the package transformers ({error}): pip install 'stabilitykit[transformers]'"
        ) from None
    return transformers


def _require_files(folder: str, download: bool) -> None:
    """UsageProblem unless there is a folder with a configuration and safe weights, or the hub may be asked."""
    path = Path(folder)
    if not path.is_dir():
        if download:
            return
        what = "is a file" if path.exists() else "does not exist"
        raise UsageProblem(
            f"transformers: {folder} {what}; give a folder that save_pretrained wrote (ORG/NAME of the hub is fetched "
            "with --download only)"
        )
    if not (path / "config.json").is_file():
        raise DataProblem(f"transformers: {folder} has no config.json; give a folder that save_pretrained wrote")
    if not any((path / name).is_file() for name in WEIGHTS):
        pickled = sorted(file.name for file in path.glob("pytorch_model*.bin"))
        what = f"only pickled weights ({pickled[0]})" if pickled else "no model.safetensors"
        raise DataProblem(
            f"transformers: {folder} has {what}; load and save it anew where you trust it: "
            "model.save_pretrained(FOLDER) writes model.safetensors"
        )


def _config(package: Any, folder: str, download: bool, name: str) -> Any:
    return _tried(
        name, lambda: package.AutoConfig.from_pretrained(folder, local_files_only=not download, trust_remote_code=False)
    )


def _weighted(package: Any, folder: str, config: Any, download: bool, name: str) -> nn.Module:
    """The classifier in eval mode, in float32, every weight from the files."""
    if getattr(config, "quantization_config", None) is not None:
        raise UsageProblem(
            f"model {name} holds quantised weights; give the float network, the property precision says what "
            "quantising changes"
        )
    with _silently(package):
        module, info = _tried(
            name,
            lambda: package.AutoModelForImageClassification.from_pretrained(
                folder,
                config=config,
                local_files_only=not download,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            ),
        )
    for what, keys in (
        ("lack", info.get("missing_keys")),
        ("have other sizes for", info.get("mismatched_keys")),
        ("hold what the network has no place for:", info.get("unexpected_keys")),
    ):
        listed = sorted(str(key[0] if isinstance(key, tuple) else key) for key in keys or ())
        if listed:
            more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
            raise DataProblem(
                f"model {name}: its weights {what} {', '.join(listed[:3])}{more}; they are not those of a "
                f"{type(module).__name__}"
            )
    return module.eval()


@contextlib.contextmanager
def _silently(package: Any) -> Iterator[None]:
    """Without the library's progress bars and its report about keys, which is judged here."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with without_bar_threads():
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _tried(name: str, build: Callable[[], T]) -> T:
    """``build()``; UsageProblem with what the library says when it refuses."""
    try:
        with quietly():
            return build()
    except Exception as error:  # damaged files, unknown architectures, code that is asked for: many kinds
        text = describe(error, 300)
        if "trust_remote_code" in text:
            text = "it comes with code of its own, which is never run; use module: for code you trust"
        raise UsageProblem(f"model {name} cannot be loaded: {text}") from None
