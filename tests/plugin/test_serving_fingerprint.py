# SPDX-License-Identifier: Apache-2.0
"""The same tensors have the same digits, others have others."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.lerobot
pytest.importorskip("transformers", reason="needs the extra `serve`")

import torch  # noqa: E402
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature  # noqa: E402
from lerobot.processor import (  # noqa: E402
    NormalizerProcessorStep,
    PolicyProcessorPipeline,
)
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_lerobot import JOINTS, STATE, STATS  # noqa: E402

from lerobot_policy_pi05_websocket.serving_checkpoint import load_checkpoint  # noqa: E402
from lerobot_policy_pi05_websocket.serving_fingerprint import (  # noqa: E402
    Fingerprint,
    normalizer_fingerprint,
)

Checkpoints = Callable[..., Path]


def digits(**tensors: torch.Tensor) -> str:
    """Return the fingerprint of some tensors."""
    fingerprint = Fingerprint()
    for name in sorted(tensors):
        fingerprint.add(name, tensors[name])
    return fingerprint.hexadecimal()


def test_known_digits() -> None:
    """As the module's first lines say, made by hand: anybody can compute them from the file."""
    said = (
        *(b"a torch.float32 (3,)\n", struct.pack("<3f", 0, 1, 2)),
        *(b"b torch.bfloat16 (2, 2)\n", bytes(8)),
    )
    expected = hashlib.sha256(b"".join(said)).hexdigest()[:16]
    assert digits(a=torch.arange(3.0), b=torch.zeros(2, 2, dtype=torch.bfloat16)) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([0.0, 1.0, 2.0 + 2**-22])},
        {"a": torch.arange(3.0)[None]},
        {"a": torch.arange(3.0, dtype=torch.float64)},
        {"b": torch.arange(3.0)},
        {"a": torch.arange(3.0), "b": torch.zeros(())},
    ],
)
def test_a_bit_a_shape_a_type_or_a_name_changes_them(other: dict[str, torch.Tensor]) -> None:
    """Two policies with the same digits are the same."""
    assert digits(**other) != digits(a=torch.arange(3.0))


def test_strides_do_not() -> None:
    """A transposed view is the tensor it shows."""
    square = torch.arange(9.0).reshape(3, 3)
    assert digits(a=square.T) == digits(a=square.T.contiguous())


def test_names_come_in_order() -> None:
    """Otherwise the digits would depend on the file."""
    fingerprint = Fingerprint()
    fingerprint.add("b", torch.zeros(1))
    with pytest.raises(AssertionError, match="'a' comes before 'b'"):
        fingerprint.add("a", torch.zeros(1))
    assert repr(fingerprint) == "<Fingerprint up to 'b'>"


def copied(folder: Path, to: Path) -> Path:
    """Copy a checkpoint."""
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_checkpoints_digits_are_its_weights(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Written in another order they stay; one changed value changes them, and not the normaliser's."""
    folder = copied(checkpoints("act"), tmp_path)
    said = load_checkpoint(str(folder)).metadata["fingerprint"]
    assert {name: len(text) for name, text in said.items()} == {"weights": 16, "normalizer": 16}
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file(dict(reversed(weights.items())), file, metadata={"format": "pt", "by": "another"})
    assert load_checkpoint(str(folder)).metadata["fingerprint"] == said
    name = next(name for name in weights if name.endswith("action_head.weight"))
    weights[name][-1, -1] += 1e-6
    save_file(weights, file)
    changed = load_checkpoint(str(folder)).metadata["fingerprint"]
    assert changed["weights"] != said["weights"]
    assert changed["normalizer"] == said["normalizer"]


def test_a_changed_statistic_changes_the_normalisers_digits(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    """One joint's deviation: the arm would be sent elsewhere, with the same weights."""
    folder = copied(checkpoints("act"), tmp_path)
    said = load_checkpoint(str(folder)).metadata["fingerprint"]
    (file,) = folder.glob("policy_postprocessor*unnormalizer*.safetensors")
    statistics = load_file(file)
    statistics["action.std"][2] *= 1.01
    save_file(statistics, file)
    changed = load_checkpoint(str(folder)).metadata["fingerprint"]
    assert changed["normalizer"] != said["normalizer"]
    assert changed["weights"] == said["weights"]


def a_pipeline(mode: NormalizationMode) -> PolicyProcessorPipeline:
    """Return a preprocessor that only normalises."""
    step = NormalizerProcessorStep(
        features={STATE: PolicyFeature(FeatureType.STATE, (JOINTS,))},
        norm_map={FeatureType.STATE: mode},
        stats=STATS,
    )
    return PolicyProcessorPipeline(steps=[step])


def test_what_is_made_of_the_statistics_counts() -> None:
    """The same numbers, used as quantiles: other digits. No numbers: none."""
    by_mean = normalizer_fingerprint(a_pipeline(NormalizationMode.MEAN_STD))
    assert by_mean == normalizer_fingerprint(a_pipeline(NormalizationMode.MEAN_STD))
    assert by_mean != normalizer_fingerprint(a_pipeline(NormalizationMode.QUANTILES))
    assert normalizer_fingerprint(PolicyProcessorPipeline(steps=[])) is None
