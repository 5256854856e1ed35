# SPDX-License-Identifier: Apache-2.0
"""Dialects of OpenPI's wire as small tables: what each server family adds, wraps, answers and calls an error.

In: a name, a URL path, or a server's metadata. Out: a `Dialect`. Pure; `dialect_robot` and `dialect_server`
follow the tables.
The codec is the same in all of them. `OPENPI` adds nothing: whoever speaks it sees stock bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

from pi05_websocket.errors import ConfigError

__all__ = [
    "AUTO",
    "DIALECTS",
    "OPENPI",
    "Dialect",
    "DialectChoice",
    "DialectName",
    "check_dialect",
    "dialect_for",
    "dialect_of_path",
    "is_word",
    "recognised",
]

DialectName = Literal[
    "openpi",
    "roboarena",
    "dreamzero",
    "vllm-omni",
    "sglang",
    "starvla",
    "behavior",
    "lingbot-va",
]

AUTO: Final = "auto"
"""By what the server says of itself; `openpi` where that names none."""

DialectChoice = Literal["auto", DialectName]

Wrapping = Literal["flat", "examples", "frames"]
"""How an observation travels:

- `flat`: as it is, beside the other fields.
- `examples`: `{"examples": [{"image": [...], "lang": ..., "state": ...}]}`.
- `frames`: `{"obs": [{camera: image}], "prompt": ...}`.
"""

AnswerShape = Literal["rows", "channels"]
"""`rows`: `(horizon, dim)`, batched or for one tick alone. `channels`: `(dim, frames, ticks of a frame)`."""

ResetStyle = Literal["none", "text", "binary", "silent"]
"""What is answered to the message that begins an episode: nobody sends one, a text, a map, nothing."""

ErrorStyle = Literal["text", "typed", "status", "traceback"]
"""What stands for a failed request:

- `text`: OpenPI's: a text message, then close code 1011.
- `typed`: `{"type": "error", "message": ...}`; the connection stays.
- `status`: `{"status": "error", "ok": False, "error": {"message": ...}}`; the connection stays.
- `traceback`: `{"error": ...}`, then close code 1011.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One server family's variant of the wire."""

    name: DialectName
    speaks: str
    """Who speaks it."""

    source: str
    """Where it is written down."""

    path: str = ""
    """The URL path its servers listen on; empty: any."""

    port: int = 8000
    """The port its servers take unless told otherwise."""

    auth: Literal["api-key", "bearer"] = "api-key"
    """The scheme its servers, or the gateways before them, read a key under."""

    wrapping: Wrapping = "flat"
    request_fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of every request beside the observation."""

    session: Literal["never", "asked", "always"] = "never"
    """Whether a request says which episode it belongs to, `session_id`; asked: where the metadata wants it."""

    request_ids: bool = False
    """Whether requests carry a `request_id` that comes back."""

    answer_path: tuple[str, ...] = ("actions",)
    """Keys that lead to the actions; none: the message is the array, or a map of arrays to put side by side."""

    answer_shape: AnswerShape = "rows"
    timed: bool = True
    """Whether an answer says `server_timing`."""

    reset: ResetStyle = "none"
    reset_fields: Mapping[str, Any] = field(default_factory=dict)
    """The message that begins an episode."""

    reset_needs_prompt: bool = False
    """Whether that message has to say what to do."""

    reset_answer: Any = None
    """What is answered to it, in the reset style's kind of message."""

    errors: ErrorStyle = "text"
    idle_close_s: float | None = None
    """After how long without a request its servers close; None: they do not."""

    sized_by_server: bool = False
    """Whether the metadata says how large images are to be, and how many outside cameras there are."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What its clients find in the metadata, with the values of a server that does not care."""

    metadata_is_closed: bool = False
    """Whether its clients stumble over any other key in the metadata."""


_ROBOARENA_METADATA: Final = {
    "image_resolution": [224, 224],
    "needs_wrist_camera": True,
    "n_external_cameras": 1,
    "needs_stereo_camera": False,
    "needs_session_id": False,
    "action_space": "joint_position",
}

OPENPI: Final = Dialect(
    name="openpi",
    speaks="OpenPI's servers, and this project's",
    source="openpi src/openpi/serving/websocket_policy_server.py",
)

_ROBOARENA: Final = Dialect(
    name="roboarena",
    speaks="RoboArena's policy servers",
    source="robo-arena/roboarena roboarena/policy_server.py",
    request_fields={"endpoint": "infer"},
    session="asked",
    timed=False,
    reset="text",
    reset_fields={"endpoint": "reset"},
    reset_answer="reset successful",
    sized_by_server=True,
    metadata=_ROBOARENA_METADATA,
    metadata_is_closed=True,
)

# RoboArena's wire, with bare arrays for answers.
_DREAMZERO: Final = replace(
    _ROBOARENA,
    name="dreamzero",
    speaks="DreamZero's own server",
    source="dreamzero0/dreamzero eval_utils/policy_client.py",
    session="always",
    answer_path=(),
    metadata={
        **_ROBOARENA_METADATA,
        "image_resolution": [180, 320],
        "n_external_cameras": 2,
        "needs_session_id": True,
    },
)

_VLLM_OMNI: Final = Dialect(
    name="vllm-omni",
    speaks="vLLM-Omni: DreamZero, GR00T, Cosmos and others",
    source="vllm-project/vllm-omni vllm_omni/entrypoints/openpi/connection.py",
    path="/v1/realtime/robot/openpi",
    port=8091,
    auth="bearer",
    session="always",
    answer_path=(),
    timed=False,
    reset="binary",
    reset_fields={"endpoint": "reset"},
    reset_answer={"status": "reset successful"},
    errors="typed",
    idle_close_s=30.0,
    sized_by_server=True,
)

_SGLANG: Final = Dialect(
    name="sglang",
    speaks="SGLang's OpenPI endpoint",
    source="sgl-project/sglang python/sglang/multimodal_gen/runtime/entrypoints/action/openpi.py",
    path="/openpi/policy",
    port=30000,
    auth="bearer",
    errors="traceback",
    metadata={"object": "action.metadata"},
)

_STARVLA: Final = Dialect(
    name="starvla",
    speaks="starVLA and its copies: InternVLA-M1, LDA, EventVLA",
    source="starVLA/starVLA deployment/model_server/tools/websocket_policy_server.py",
    port=10093,
    wrapping="examples",
    request_fields={"type": "infer"},
    request_ids=True,
    answer_path=("data", "actions"),
    timed=False,
    errors="status",
    metadata={"available_unnorm_keys": []},
)

_BEHAVIOR: Final = Dialect(
    name="behavior",
    speaks="BEHAVIOR-1K, OmniGibson, openpi-comet",
    source="StanfordVL/BEHAVIOR-1K OmniGibson/omnigibson/learning/utils/network_utils.py",
    answer_path=("action",),
    reset="silent",
    reset_fields={"reset": True},
)

_LINGBOT_VA: Final = Dialect(
    name="lingbot-va",
    speaks="LingBot-VA",
    source="Robbyant/lingbot-va wan_va/wan_va_server.py",
    wrapping="frames",
    answer_path=("action",),
    answer_shape="channels",
    reset="binary",
    reset_fields={"reset": True},
    reset_needs_prompt=True,
    reset_answer={},
)

DIALECTS: Final[dict[str, Dialect]] = {
    each.name: each
    for each in (
        OPENPI,
        _ROBOARENA,
        _DREAMZERO,
        _VLLM_OMNI,
        _SGLANG,
        _STARVLA,
        _BEHAVIOR,
        _LINGBOT_VA,
    )
}
"""All of them by name."""

assert set(DIALECTS) == set(get_args(DialectName))

_PATHS: Final = {f"/{name}": each for name, each in DIALECTS.items()} | {
    each.path: each for each in DIALECTS.values() if each.path
}

_ROBOARENA_ALONE: Final = frozenset({"n_external_cameras", "needs_session_id", "action_space"})
_VLLM_OMNI_ALONE: Final = frozenset({"supported_embodiments", "action_keys"})


def check_dialect(name: str, *, setting: str = "dialect") -> None:
    """Check what a user chose.

    Raises:
        ConfigError: No dialect of that name, and not `auto`.
    """
    if name != AUTO and name not in DIALECTS:
        raise ConfigError(f"{setting}={name!r}: expected one of {', '.join((AUTO, *DIALECTS))}")


def dialect_for(chosen: str, metadata: Mapping[str, Any], path: str) -> Dialect:
    """Return how to talk to a server: as chosen, or with `auto` as it says itself.

    Args:
        chosen: A dialect's name, or `auto`.
        metadata: What the server sent first.
        path: The URL path it was found at.
    """
    if chosen != AUTO:
        return DIALECTS[chosen]
    return recognised(metadata, path) or OPENPI


def dialect_of_path(path: str) -> Dialect | None:
    """Return the dialect a URL path stands for, with or without a query: its servers' own, or `/NAME`."""
    return _PATHS.get(_bare(path))


def recognised(metadata: Mapping[str, Any], path: str = "/") -> Dialect | None:
    """Return the dialect of a server by what it says of itself; None where that is not certain.

    RoboArena's metadata is spoken by DreamZero and vLLM-Omni too. They differ in what comes back, which is read
    in all three forms, so only the path tells vLLM-Omni apart. BEHAVIOR-1K and LingBot-VA say nothing.
    """
    if _bare(path) == _VLLM_OMNI.path or metadata.keys() & _VLLM_OMNI_ALONE:
        return _VLLM_OMNI
    if metadata.keys() >= _ROBOARENA_ALONE:
        return _ROBOARENA
    if is_word(metadata.get("object"), "action.metadata"):
        return _SGLANG
    if "available_unnorm_keys" in metadata:
        return _STARVLA
    return None


def resembles(chosen: DialectChoice, known: Dialect) -> bool:
    """Say whether a server of the chosen dialect may look like one that was recognised by its metadata."""
    return chosen == known.name or (known is _ROBOARENA and chosen in ("dreamzero", "vllm-omni"))


def is_word(value: object, word: str) -> bool:
    """Say whether a stranger's value is this word; an array would compare to an array."""
    return isinstance(value, str) and value == word


def _bare(path: str) -> str:
    return path.partition("?")[0].rstrip("/")
