# SPDX-License-Identifier: Apache-2.0
"""What JPEG costs and saves: bytes, milliseconds and lost quality of an observation at each quality.

In: nothing; the images are rendered by the simulator, or made up, with a sensor's noise added. Out: a table,
and a JSON file where asked for. All ways take turns, call by call, so that whatever else the machine does
falls on all of them alike.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import tyro

from pi05_websocket.bench.report import measured_at
from pi05_websocket.client.image_quality import LADDER
from pi05_websocket.data import Observation, UInt8Array
from pi05_websocket.images import resize_with_pad
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import decode_images, encode_images

DESCRIPTION = """\
Compare an observation's images as they are with the same as JPEG: how many bytes travel, how long packing and
unpacking take, and what is left of the pixels.

  full     480x640 and 224x224, as the preset so101 sends them
  padded   both 224x224, as --policy.cameras='{realsense: "realsense pad 224x224"}' makes them on the robot

  bytes    of the whole message: images, joints, prompt
  encode   from the observation to its message, on the robot
  decode   from the message to the observation, on the server
  PSNR     of all pixels of both images, decibels; 40 and more is hardly to be seen
  error    mean absolute difference, in steps of 255

What fits into 14.5 kB is sent at once by the kernel (ten segments, RFC 6928); more waits for acknowledgements.

examples:
  python benchmarks/image_transport.py
  python benchmarks/image_transport.py --noise 0 --qualities 98 95 90
  python benchmarks/image_transport.py --calls 500 --json image_transport.json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    qualities: tuple[int, ...] = LADDER
    """JPEG qualities, libjpeg's."""

    images: Literal["rendered", "made-up"] = "rendered"
    """rendered: by the simulator, which needs the extra `sim`; made-up: slopes and edges."""

    noise: float = 1.5
    """Standard deviation of the noise on each pixel; a webcam in a lit room has 1 to 3. Rendered images alone
    are smoother than any camera's."""

    calls: int = 100
    """How often each is packed and unpacked, after three that do not count."""

    json: Path | None = None
    """Where to write the figures."""


_SHAPES = {"wrist2": (224, 224), "realsense": (480, 640)}


def rendered() -> dict[str, UInt8Array]:
    """Return both images of the simulated arm."""
    from pi05_websocket.sim.so101 import SimConfig, SimSO101

    arm = SimSO101(SimConfig(render="demand"))
    try:
        seen: dict[str, Any] = arm.get_observation()
        return {name: np.asarray(seen[name]) for name in _SHAPES}
    finally:
        arm.close()


def made_up(rows: int, columns: int) -> UInt8Array:
    """Return slopes of all three colours with a few edges."""
    x, y = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    image = np.stack([x, y, (x + y) / 2], axis=2) * 200 + 20
    image[(x * 10).astype(int) % 3 == 0] *= 0.6
    return image.astype(np.uint8)


def noisy(image: UInt8Array, deviation: float) -> UInt8Array:
    """Return the image as a sensor would have seen it."""
    noise = np.random.default_rng(0).normal(0.0, deviation, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def observations(settings: Settings) -> dict[str, Observation]:
    """Return the observation in full and padded."""
    if settings.images == "rendered":
        clean = rendered()
    else:
        clean = {name: made_up(*shape) for name, shape in _SHAPES.items()}
    images = {name: noisy(image, settings.noise) for name, image in clean.items()}

    def observation(front: UInt8Array) -> Observation:
        return {
            "observation/images/wrist2": images["wrist2"],
            "observation/images/realsense": front,
            "observation/state": np.zeros(6, np.float32),
            "prompt": "pick up the red cube",
        }

    front = images["realsense"]
    padded = resize_with_pad(front, 224, 224)
    return {"full": observation(front), "padded": observation(padded)}


@dataclass(slots=True)
class Way:
    """One way to send an observation, and what it cost so far."""

    name: str
    observation: Observation
    pack: Callable[[Observation], bytes]
    encode_ms: list[float]
    decode_ms: list[float]
    message: bytes = b""
    received: Observation | None = None

    def turn(self) -> None:
        """Pack and unpack once."""
        began = time.perf_counter()
        self.message = self.pack(self.observation)
        packed = time.perf_counter()
        self.received = decode_images(codec.decode(self.message))
        done = time.perf_counter()
        self.encode_ms.append(1000 * (packed - began))
        self.decode_ms.append(1000 * (done - packed))

    def figures(self) -> dict[str, Any]:
        """Return what it cost, without the first turns."""
        assert self.received is not None
        error = np.concatenate(
            [
                (value.astype(np.int16) - self.received[key]).ravel()
                for key, value in self.observation.items()
                if isinstance(value, np.ndarray) and value.ndim == 3
            ]
        ).astype(np.float64)
        square = float(np.mean(error**2))
        return {
            "name": self.name,
            "bytes": len(self.message),
            "encode_ms": quantiles(self.encode_ms[_WARM_UP:]),
            "decode_ms": quantiles(self.decode_ms[_WARM_UP:]),
            "psnr_db": round(10 * math.log10(255**2 / square), 1) if square else None,
            "mean_abs_error": round(float(np.abs(error).mean()), 2),
        }


_WARM_UP = 3


def ways(settings: Settings) -> list[Way]:
    """Return every way, raw ones first."""

    def as_jpeg(quality: int) -> Callable[[Observation], bytes]:
        return lambda observation: codec.encode(encode_images(observation, quality)[0])

    listed = []
    for size, observation in observations(settings).items():
        listed.append(Way(f"{size}, raw", observation, codec.encode, [], []))
        for quality in settings.qualities:
            name = f"{size}, JPEG {quality}"
            listed.append(Way(name, observation, as_jpeg(quality), [], []))
    return listed


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return median and 99th percentile."""
    ordered = sorted(values)
    slow = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"p50": round(median(ordered), 3), "p99": round(slow, 3)}


def table(figures: Sequence[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| images | message | encode, median and p99 | decode, median and p99 | PSNR | error |",
        "|---|---|---|---|---|---|",
    ]
    for f in figures:
        times = [
            f"{f[key]['p50']:.2f}, {f[key]['p99']:.2f} ms" for key in ("encode_ms", "decode_ms")
        ]
        psnr = "exact" if f["psnr_db"] is None else f"{f['psnr_db']:.1f} dB"
        lines.append(
            f"| {f['name']} | {f['bytes'] / 1000:,.1f} kB | {' | '.join(times)} | {psnr} "
            f"| {f['mean_abs_error']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings, description=DESCRIPTION)
    listed = ways(settings)
    for _ in range(settings.calls + _WARM_UP):
        for way in listed:
            way.turn()
    figures = [way.figures() for way in listed]
    where = measured_at()
    print(table(figures))
    print(
        f"\n{settings.images} images with noise of {settings.noise:g}, {settings.calls} calls each, on "
        f"{where['machine']}, at commit {where['commit']}."
    )
    if settings.json is not None:
        found = {**where, "images": settings.images, "noise": settings.noise, "ways": figures}
        settings.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
