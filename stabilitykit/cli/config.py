"""Configuration files for `evaluate`: YAML or TOML, a mapping from option names to values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import UsageProblem, describe
from stabilitykit.base.files import require_regular

# A configuration is typed by people; anything larger is the wrong file.
MAX_BYTES = 1_000_000
# Parsers of TOML take quadratic time for a key of many parts; options have one.
_DEEP_KEY = re.compile(r"""(?<![\w"'-])(?:[\w"'-]+[ \t]*\.[ \t]*){32}""")
# Numbers as people type them: YAML 1.1 also reads 59:59:59 as one, to base 60 and in quadratic time.
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,30})$")
_REAL = re.compile(
    r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in ``path`` (.yaml, .yml or .toml); UsageProblem when it cannot be read as one."""
    path = Path(path)
    if path.suffix not in (".yaml", ".yml", ".toml"):
        raise UsageProblem(f"config {path}: expected .yaml, .yml or .toml")
    try:
        require_regular(path)
        if path.stat().st_size > MAX_BYTES:
            raise UsageProblem(f"config {path} is larger than 1 MB; that is no configuration")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"cannot read config {path}: {error}") from None
    try:
        if path.suffix == ".toml":
            import tomllib

            if _DEEP_KEY.search(text):
                raise UsageProblem(f"config {path}: a key of more than 32 parts; options have names of one part")
            data = tomllib.loads(text)
        else:
            import yaml

            if "&" in text and "*" in text and any(isinstance(t, yaml.AliasToken) for t in yaml.scan(text)):
                raise UsageProblem(f"config {path}: YAML aliases are not accepted (they can expand without bound)")

            class Strict(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML brings no types
                """YAML lets the last of two equal keys win; people mean one of them and cannot see which."""

            def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
                seen: set[str] = set()
                for key in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                    if key in seen:
                        raise UsageProblem(f"config {path}: the key {key!r} stands twice")
                    seen.add(key)
                built: dict[Any, Any] = loader.construct_mapping(node, deep=True)
                return built

            Strict.yaml_implicit_resolvers = {
                first: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")]
                for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
            }
            Strict.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))
            Strict.add_implicit_resolver("tag:yaml.org,2002:float", _REAL, list("-+0123456789."))
            Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
            data = yaml.load(text, Strict)
    except UsageProblem:
        raise
    except (Exception, RecursionError) as error:
        raise UsageProblem(f"config {path} does not parse: {describe(error)}") from None
    if not isinstance(data, dict):
        raise UsageProblem(f"config {path}: expected a mapping of options, got {type(data).__name__}")
    return data
