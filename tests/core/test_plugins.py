"""Loading is isolated: whatever one plugin does, the others load and the failure is recorded with its owner."""

import textwrap
from types import SimpleNamespace

import pytest

from stabilitykit import Command, Component, hookimpl
from stabilitykit.base.errors import PluginProblem
from stabilitykit.plugins.loading import load_plugins


def point(name, load, distribution="some-dist", version="1.2"):
    return SimpleNamespace(
        name=name, value=f"{name}_module", load=load, dist=SimpleNamespace(name=distribution, version=version)
    )


def plugin(**hooks):
    return SimpleNamespace(**{name: hookimpl(function) for name, function in hooks.items()})


def good(name="fine"):
    return plugin(stabilitykit_models=lambda: [Component("model", name, "json:loads", "")])


def raising(error):
    def load():
        raise error

    return load


# What ends or hangs the process stands in tests/robustness/test_misdeeds.py.
BROKEN = {
    "import-error": (raising(ImportError("no module named zzz")), "ImportError: no module named zzz"),
    "system-exit": (raising(SystemExit(3)), "SystemExit"),
    "syntax-error": (raising(SyntaxError("bad")), "SyntaxError"),
    "wrong-signature": (lambda: plugin(stabilitykit_models=lambda surprise: []), "surprise"),
    "unknown-hook": (lambda: plugin(stabilitykit_nonsense=lambda: []), "stabilitykit_nonsense"),
    "raises-in-hook": (lambda: plugin(stabilitykit_models=lambda: 1 / 0), "ZeroDivisionError"),
    "wrong-type": (lambda: plugin(stabilitykit_models=lambda: "abc"), "expected a list"),
    "wrong-item": (lambda: plugin(stabilitykit_models=lambda: [1]), "expected Component"),
    "wrong-kind": (
        lambda: plugin(stabilitykit_models=lambda: [Component("dataset", "d", "a:b", "")]),
        "kind 'dataset'",
    ),
    "bad-target": (lambda: plugin(stabilitykit_models=lambda: [Component("model", "m", "nowhere", "")]), "module:attr"),
    "bad-name": (lambda: plugin(stabilitykit_models=lambda: [Component("model", "a:b", "a:b", "")]), "a:b"),
    "long-name": (lambda: plugin(stabilitykit_models=lambda: [Component("model", "m" * 999, "a:b", "")]), "1 to 80"),
    "wrong-summary": (
        lambda: plugin(stabilitykit_models=lambda: [Component("model", "m", "a:b", None)]),
        "summary is None",
    ),
    "wrong-option": (
        lambda: plugin(stabilitykit_models=lambda: [Component("model", "m", "a:b", "", options=(3,))]),
        "stabilitykit.Option",
    ),
    "wrong-need": (
        lambda: plugin(stabilitykit_properties=lambda: [Component("property", "p", "a:b", "", needs=(3,))]),
        "name of a property",
    ),
    "wrong-command": (lambda: plugin(stabilitykit_commands=lambda: [Command("c", None, "")]), "module:attribute"),
    "no-hooks": (SimpleNamespace, "no stabilitykit hook"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_broken_plugin_leaves_the_rest(name, capsys):
    load, message = BROKEN[name]
    points = [
        point("a", lambda: good("first")),
        point(name, load, "broken-dist", "0.9"),
        point("z", lambda: good("last")),
    ]
    host = load_plugins(points)
    assert [c.name for c in host.components] == ["first", "last"]
    [failure] = host.failures
    assert failure.owner == "broken-dist 0.9" and message in failure.error
    with pytest.raises(PluginProblem, match=r"broken-dist 0\.9"):
        host.require_healthy()


def test_components_know_their_owner_and_commands_are_collected():
    thing = plugin(
        stabilitykit_models=lambda: [Component("model", "m", "a:b", "")],
        stabilitykit_commands=lambda: [Command("audit", "a:b", "summary")],
    )
    host = load_plugins([point("p", lambda: thing, "owner", "3")])
    assert host.components[0].owner == "owner 3" and host.commands[0].distribution == "owner"
    assert host.records[0].provides == ["model m", "command audit"]


def test_broken_metadata_is_no_crash():
    class Dist:
        @property
        def name(self):
            raise KeyError("Name")

    entry = SimpleNamespace(name="p", value="v", load=good, dist=Dist())
    assert load_plugins([entry]).records[0].distribution == "unknown"


def test_shipped_plugins_load_by_their_entry_points_without_torch():
    import subprocess
    import sys

    code = textwrap.dedent("""
        import sys
        from stabilitykit.plugins.loading import load_plugins
        host = load_plugins()
        assert not host.failures, host.failures
        heavy = {"torch", "torchvision", "timm", "cvxpy", "numba", "scipy", "sklearn", "pandas"} & set(sys.modules)
        assert not heavy, heavy
        print(",".join(sorted(r.name for r in host.records if r.distribution == "stabilitykit")))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip()
        == "adapters,datasets,expansivity,lipschitz,onnx,precision,recorded,resnets,separation,shadowing,timm,"
        "topological,transformers,vision"
    )


@pytest.mark.parametrize("content", [b"\xff\xfe[stabilitykit]\nx = y\n", b"[stabilitykit]\nno equals sign\n"])
def test_an_unreadable_file_of_entry_points_hides_no_plugin(tmp_path, monkeypatch, content):
    info = tmp_path / "h_odd-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: h-odd\nVersion: 1.5\n")
    (info / "entry_points.txt").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    host = load_plugins()
    assert {"expansivity", "vision"} <= {r.name for r in host.records if r.ok}
    assert [(r.owner, "cannot be read" in r.error) for r in host.failures] == [("h-odd 1.5", True)]
