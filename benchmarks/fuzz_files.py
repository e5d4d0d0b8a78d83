"""Hostile files: weights, arrays, recorded readouts, images, run folders."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz_bench import TINY, WORDS, Bench, Case, Touch, evaluate, mutate


def checkpoint(rng: random.Random, folder: Path, bench: Bench) -> Case:
    """Weights: mutated and truncated safetensors, lying headers, pickles with code, archives."""
    import torch

    how, fails = rng.randrange(9), True
    suffix = ".safetensors"
    size = struct.unpack("<Q", bench.weights[:8])[0]
    header = json.loads(bench.weights[8 : 8 + size])
    body = bench.weights[8 + size :]

    def packed(changed: Any) -> bytes:
        text = json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + body

    if how == 0:
        data, fails = mutate(rng, bench.weights, rng.choice([8, 300, size, len(bench.weights)])), False
    elif how == 1:
        data = bench.weights[: rng.choice([0, 1, 7, 8, 100, size, len(bench.weights) - 1])]
    elif how == 2:
        data = (
            struct.pack("<Q", rng.choice([0, 1, 2**63, 2**64 - 1, 2**32, size + 1, size - 1, 10**8]))
            + bench.weights[8:]
        )
    elif how == 3:
        name = rng.choice([k for k in header if k != "__metadata__"])
        change = rng.choice(
            [
                {"dtype": "F64"},
                {"dtype": "F8_E4M3"},
                {"dtype": "X"},
                {"shape": [10**9, 10**9]},
                {"shape": [-1]},
                {"data_offsets": [0, 10**12]},
                {"data_offsets": [5, 1]},
                {"shape": "x"},
            ]
        )
        data = packed(header | {name: header[name] | change})
    elif how == 4:
        data = packed(
            rng.choice(
                [
                    [],
                    {},
                    {"__metadata__": {"stabilitykit": "[" * 2000}},
                    {"a": 1},
                    {"a": {"dtype": "F32"}},
                    header | {"__metadata__": {"stabilitykit": "{"}},
                ]
            )
        )
    elif how == 5:
        start = size + 8 + 4 * rng.randrange((len(body) - 4) // 4)
        data = (
            bench.weights[:start]
            + struct.pack("<f", rng.choice([float("nan"), float("inf")]))
            + bench.weights[start + 4 :]
        )
    else:
        suffix = rng.choice([".pth", ".pt", ".bin", ".ckpt", ".tar", ".th"])
        stream = io.BytesIO()
        if how == 6:
            content = rng.choice([Touch(rng.randrange(3)), {"state_dict": {"w": Touch(rng.randrange(3))}}, [Touch(0)]])
            data = pickle.dumps(content, protocol=rng.choice([0, 2, 4, 5]))
            if rng.random() < 0.5:
                torch.save(content, stream, _use_new_zipfile_serialization=rng.random() < 0.7)
                data = stream.getvalue()
        elif how == 7:
            torch.save(
                {"a": torch.ones(3), "b": rng.choice([1, None, "x", torch.ones(2)])},
                stream,
                _use_new_zipfile_serialization=rng.random() < 0.5,
            )
            data = mutate(rng, stream.getvalue()) if rng.random() < 0.7 else stream.getvalue()
        else:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("archive/data.pkl", b"\0" * rng.choice([10, 50_000_000]))
                archive.writestr("archive/version", "3")
            data = stream.getvalue()
    path = folder / f"w{rng.choice([suffix] * 9 + ['', '.txt', '.SAFETENSORS'])}"
    path.write_bytes(data)
    return Case(evaluate("-m", "resnet18:width=8", "-d", "digits", "--checkpoint", str(path), folder=folder), fails)


def _npy(array: np.ndarray, pickled: bool = False) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=pickled)
    return stream.getvalue()


def _lying_npy(shape: str, descr: str = "|u1", body: bytes = b"") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def npz(rng: random.Random, folder: Path, bench: Bench) -> Case:
    """Arrays: bombs by declared size, objects, wrong dtypes, shapes and labels, damaged archives."""
    count = rng.choice([1, 2, 3, 12])
    images = np.random.default_rng(rng.randrange(9)).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(count) % 10
    members = {"X.npy": _npy(images), "y.npy": _npy(labels)}
    how, fails = rng.randrange(8), True
    if how == 0:
        members["X.npy"] = _lying_npy(
            rng.choice(
                [
                    "(1000000, 3, 1024, 1024)",
                    "(99999999999,)",
                    "(4, 32, 32, 3)",
                    "(-1, 2)",
                    "'x'",
                    "(2, 8, 8, 3), 'x': ().__class__",
                    "(12, 32, 32)",
                    "()",
                    "(0, 8, 8, 3)",
                ]
            )
        )
    elif how == 1:
        members["X.npy"] = _npy(np.array([Touch(rng.randrange(3))] * count, dtype=object), True)
    elif how == 2:
        labels = rng.choice(
            [
                labels * 0,
                labels - 1,
                labels + 5,
                labels.astype(float),
                labels[:-1],
                labels * 10**9,
                labels[:, None, None],
                labels.astype("U3"),
                labels > 3,
                np.full(count, 2**63, dtype=np.uint64),
            ]
        )
        members["y.npy"], fails = _npy(labels), False
    elif how == 3:
        bad = rng.choice(
            [
                images.astype("f4"),
                images.astype("f8") / 255,
                images.astype("i8"),
                images[..., :2],
                images[0],
                images[:, :0],
                images.astype("c16"),
                np.where(images > 9, np.nan, 0.5),
                images.astype("f4") * 1e30,
                images.astype("U2"),
                images.astype("f2"),
                np.zeros((count, 32, 32, 3), "V4"),
            ]
        )
        members["X.npy"], fails = _npy(bad), False
    elif how == 4:
        members["class_names.npy"] = _npy(
            rng.choice(
                [
                    np.array(["a"]),
                    np.arange(10),
                    np.array([["a"] * 10]),
                    np.array([b"\xff"] * 10),
                    np.array([Touch(0)] * 10, dtype=object),
                ]
            ),
            True,
        )
        fails = False
    elif how == 5:
        for key in rng.sample(list(members), rng.choice([1, 2])):
            members[rng.choice([key, "other.npy", "../../x.npy", "X"])] = members.pop(key)
        fails = False
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, data in members.items():
            if how == 6 and name == "X.npy":
                data = (
                    _lying_npy("(60000000, 1, 1, 1)", body=b"\0" * 60_000_000)
                    if rng.random() < 0.2
                    else data + b"\0" * 10
                )
            archive.writestr(name, data)
    raw = stream.getvalue()
    if how == 7:
        raw, fails = rng.choice([raw[: rng.randrange(len(raw))], mutate(rng, raw), rng.randbytes(99)]), False
    path = folder / "d.npz"
    path.write_bytes(raw)
    more = rng.choice(
        ["", "", "", ",layout=nchw", ",mask=y", ",pad=2", ",max_gib=0", ",max_gib=0.00001", ",channels=keep"]
    )
    return Case(evaluate("--any-classes", "-d", f"npz:{path}{more}", folder=folder), fails and not more)


def trajectories(rng: random.Random, folder: Path, bench: Bench) -> Case:
    """Recorded readouts: NaN, Inf, huge, denormal, constant; one class, missing classes, one image per class."""
    depths, count, classes = rng.choice([1, 2, 5]), rng.choice([1, 2, 3, 9]), rng.choice([1, 2, 4])
    draw = np.random.default_rng(rng.randrange(1000))
    values = draw.normal(size=(depths, count, classes))
    fails = False
    special = rng.randrange(8)
    if special == 0:
        values[rng.randrange(depths), rng.randrange(count), 0] = rng.choice([np.nan, np.inf, -np.inf])
        fails = True
    elif special == 1:
        values *= rng.choice([1e308, 1e200, 1e-300, 5e-324])
    elif special == 2:
        values[:] = rng.choice([0.0, 1.0, -1e308])
    elif special == 3:
        values[:, count // 2 :] = values[:, :1]
    elif special == 4:
        values = values.astype(rng.choice(["f2", "f4", "i8", "u1", "c16", "U4", "?"]))
    elif special == 5:
        values = rng.choice([values[0], values[None], values[:, :0], values[..., :0], values.reshape(-1)])
    layout = rng.randrange(7)
    labels = [
        np.zeros(count, int),
        np.arange(count),
        np.arange(count) * 3,
        np.arange(count) % max(classes, 1),
        -np.arange(count),
        np.arange(count).astype(float),
        np.arange(count + 1),
    ][layout]
    if rng.random() < 0.05:
        labels = labels * 10**12
    path = folder / "t.npz"
    np.savez(
        path,
        values=values,
        labels=labels,
        **({"class_names": np.array(rng.choice(WORDS[-9:]))} if rng.random() < 0.1 else {}),
    )
    chosen = rng.sample(
        ["expansivity", "shadowing", "expansivity:pairs=predictions", "shadowing:bracket=false"], rng.choice([1, 2])
    )
    space = rng.choice([[], ["--space", "probabilities"]])
    return Case(evaluate("-t", str(path), *(w for p in chosen for w in ("-p", p)), *space, folder=folder), fails)


def images(rng: random.Random, folder: Path, bench: Bench) -> Case:
    """Image folders: mutated files, odd modes, bombs, links, names."""
    from PIL import Image

    formats = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP", "tif": "TIFF", "ppm": "PPM"}
    data = folder / "images"
    for label in rng.sample(["a", "b", "<script>", "é", "x" * 200, "c d", "=1"], rng.choice([1, 2, 3])):
        (data / label).mkdir(parents=True)
        for number in range(rng.choice([0, 1, 2, 3])):
            ending = rng.choice(list(formats))
            mode = rng.choice(
                ["RGB", "L"]
                if ending in ("jpg", "webp", "ppm")
                else ["RGB", "L", "P", "1", *(["RGBA", "LA", "I;16"] if ending == "png" else [])]
            )
            stream = io.BytesIO()
            side = rng.choice([1, 2, 16, 16, 16, 33])
            try:
                Image.new(mode, (side, 16)).save(stream, formats[ending])
            except (OSError, ValueError, KeyError):
                Image.new("RGB", (side, 16)).save(stream, "PNG")
            raw = stream.getvalue()
            how = rng.random()
            if how < 0.25:
                raw = mutate(rng, raw)
            elif how < 0.35:
                raw = raw[: rng.randrange(len(raw))]
            elif how < 0.45 and ending == "png":  # a bomb: 400 megapixels declared
                raw = raw[:16] + struct.pack(">II", 20_000, 20_000) + raw[24:]
            (data / label / f"{number}.{ending}").write_bytes(raw)
    if rng.random() < 0.1:
        data.mkdir(exist_ok=True)
        (data / "loop").symlink_to(data)
    size = rng.choice(["", ",size=32", ",size=32"])
    return Case(evaluate("--any-classes", "-d", f"imagefolder:{data}{size}", folder=folder))


def _damage(rng: random.Random, data: Any, depth: int = 0) -> Any:
    """Replace, drop or add something somewhere in parsed JSON."""
    odd = [
        None,
        True,
        -1,
        0,
        1e308,
        "x",
        "",
        [],
        {},
        [[]],
        {"a": None},
        "inf",
        "nan",
        10**30,
        "<script>alert(1)</script>",
        "\ud800",
        ["a", 1],
        -0.5,
        "../../etc/passwd",
    ]
    if depth > 7 or not isinstance(data, (dict, list)) or not data or rng.random() < 0.12:
        return rng.choice(odd)
    copy = dict(data) if isinstance(data, dict) else list(data)
    key = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
    if rng.random() < 0.12:
        del copy[key]
    else:
        copy[key] = _damage(rng, copy[key], depth + 1)
    return copy


def runs(rng: random.Random, folder: Path, bench: Bench) -> Case:
    """Run folders with damaged JSON, for every command that reads one."""
    run = folder / "run"
    shutil.copytree(bench.run, run)
    for _ in range(rng.choice([1, 1, 2])):
        path = rng.choice([run / "run.json", *(run / "cells").iterdir()])
        try:
            parsed = json.loads(path.read_text(errors="replace"))
        except ValueError:  # damaged twice
            break
        if rng.random() < 0.8:
            path.write_text(json.dumps(_damage(rng, parsed)))
        else:
            path.write_bytes(mutate(rng, path.read_bytes()))
    command = rng.choice(
        [
            ["report", str(run)],
            ["report", str(run)],
            ["export", str(run), "--format", rng.choice(["csv", "json", "latex"])],
            ["compare", str(run), str(bench.run)],
            ["compare", str(bench.run), str(run), "--format", "json"],
            ["verify", str(run), "-q"],
            ["evaluate", *TINY, "-o", str(run), "--resume", "-p", "expansivity"],
        ]
    )
    return Case(command)
