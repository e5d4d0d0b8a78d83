"""Configuration files: YAML and TOML mean the same, and nothing in them can hurt."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.base.errors import UsageProblem
from stabilitykit.cli.config import read_config


def test_yaml_and_toml_agree(tmp_path):
    (tmp_path / "a.yaml").write_text("models: [resnet18]\nlimit: 10\nspace: logits\n")
    (tmp_path / "a.toml").write_text('models = ["resnet18"]\nlimit = 10\nspace = "logits"\n')
    assert read_config(tmp_path / "a.yaml") == read_config(tmp_path / "a.toml")


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.yaml", "a: [1"),
        ("a.yaml", "- 1\n- 2"),
        ("a.yaml", "!!python/object/apply:os.system ['true']"),
        ("a.yaml", "limit: 5\nseed: 1\nlimit: 6"),
        ("a.yaml", "model: {name: a, name: b}"),
        ("a.yaml", "a: &x [1, 2]\nb: *x"),
        ("a.toml", "a = "),
        ("a.toml", ".".join("a" * 20_000) + " = 1"),  # its parser would take minutes
        ("a.yaml", "a: " + "[" * 100_000),
        ("a.json", "{}"),
        ("a.yaml", ""),
    ],
)
def test_bad_files_are_one_clear_error(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageProblem):
        read_config(tmp_path / name)


@pytest.mark.parametrize("text", ["59:59:59", ":".join(["59"] * 20_000), "0:20", "1_0:30.5"])
def test_numbers_to_base_60_are_text(tmp_path, text):
    """YAML 1.1 reads them as numbers, in quadratic time; an option then refuses the text."""
    (tmp_path / "a.yaml").write_text(f"limit: {text}")
    assert read_config(tmp_path / "a.yaml") == {"limit": text}


def test_missing_file(tmp_path):
    with pytest.raises(UsageProblem, match="cannot read"):
        read_config(tmp_path / "absent.yaml")


@given(st.binary(max_size=60), st.sampled_from(["x.yaml", "x.toml"]))
def test_any_bytes(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("config") / name
    path.write_bytes(data)
    with contextlib.suppress(UsageProblem):
        assert isinstance(read_config(path), dict)
