# SPDX-License-Identifier: Apache-2.0
"""The mistakes that `pi05-websocket doctor` knows: how each is told apart from the others, and its fix. Pure.

In: nothing. Out: a table; the reference page is made from it, and each of its lines is seeded in a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["MISTAKES", "Mistake", "Verdict", "markdown_table"]

Verdict = Literal["refused", "look", "needs dataset"]
"""What a mistake ends in."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong before anything moves."""

    name: str
    group: str
    verdict: Verdict
    what: str
    """The mistake, in a sentence."""

    fix: str
    """What to do about it."""


_ALL = (
    Mistake(
        "address-malformed",
        "address",
        "refused",
        "The address is none: `http://`, no host, white space, a key in it.",
        "Write ws://HOST:PORT, or wss://HOST with TLS; keys go into --api-key-env or --api-key-file.",
    ),
    Mistake(
        "name-unknown",
        "address",
        "refused",
        "The host's name cannot be resolved.",
        "Check the spelling; try the IP address; a VPN's names need the VPN.",
    ),
    Mistake(
        "nothing-listens",
        "server",
        "refused",
        "The computer answers, but nothing listens at the port.",
        "Start the server, with --host 0.0.0.0 if it is on another computer, and compare the port.",
    ),
    Mistake(
        "port-silent",
        "server",
        "refused",
        "The port accepts connections and then says nothing: a firewall, a tunnel, a server that computes.",
        "Look at the server's log; a stock OpenPI server answers nobody while it computes. Through a tunnel, "
        "check that its other end listens.",
    ),
    Mistake(
        "not-a-websocket",
        "server",
        "refused",
        "Another service answers at the port.",
        "Compare the port with what the server printed at its start; a tunnel may end at a port where nothing "
        "listens.",
    ),
    Mistake(
        "path-wrong",
        "server",
        "refused",
        "The web server there knows no such path.",
        "Check the path of the address, and whether a proxy passes WebSocket upgrades on.",
    ),
    Mistake(
        "tls-not-spoken",
        "server",
        "refused",
        "The address says wss://, and the server speaks plain ws://.",
        "Write ws:// instead of wss://, or start the server with --tls auto.",
    ),
    Mistake(
        "tls-needed",
        "server",
        "refused",
        "The address says ws://, and the server speaks TLS.",
        "Write wss:// instead of ws://, with the server's --tls-fingerprint, or its --ca-file.",
    ),
    Mistake(
        "certificate-untrusted",
        "server",
        "refused",
        "The server's certificate was signed by nobody that is trusted here.",
        "Give the authority's file as --ca-file, or, of a server with --tls auto, its --tls-fingerprint.",
    ),
    Mistake(
        "certificate-expired",
        "server",
        "refused",
        "The server's certificate has expired, or this computer's clock is wrong.",
        "Compare `date` on both computers; renew the certificate.",
    ),
    Mistake(
        "fingerprint-differs",
        "server",
        "refused",
        "The server's key is another one than the pinned one.",
        "If the server's key was made anew, take the fingerprint that it prints at its start. If not, another "
        "computer answers in its place.",
    ),
    Mistake(
        "key-missing",
        "server",
        "refused",
        "The server wants a key, and none was sent.",
        "Name the environment variable that holds it with --api-key-env, or the file with --api-key-file.",
    ),
    Mistake(
        "key-wrong",
        "server",
        "refused",
        "The server does not know the key that was sent.",
        "Ask who runs the server: `pi05-websocket keys list` shows whose keys are valid; some servers want "
        "--auth-scheme bearer.",
    ),
    Mistake(
        "key-source-empty",
        "address",
        "refused",
        "The variable or the file that should hold the key is empty or not there.",
        "Set it in this terminal (`export NAME=...`), or name the right file.",
    ),
    Mistake(
        "server-busy",
        "server",
        "refused",
        "The server lets nobody in now: it is starting, full or being drained.",
        "Starting: wait until it has loaded its model. Full or drained: take another server, or ask who runs "
        "it; `GET /readyz` of its operations port says why.",
    ),
    Mistake(
        "no-greeting",
        "server",
        "refused",
        "A WebSocket server that does not speak first: no policy server.",
        "Check host, port and path. An OpenPI server sends its metadata before anything is asked.",
    ),
    Mistake(
        "other-protocol",
        "server",
        "refused",
        "A server that speaks another protocol: its first message is no msgpack map.",
        "Start a server of OpenPI's protocol: OpenPI's serve_policy.py, or `pi05-websocket serve`.",
    ),
    Mistake(
        "dialect-other",
        "metadata",
        "refused",
        "The metadata is that of another family than the chosen dialect, or of one that is not certain.",
        "Set --dialect (--policy.dialect; docs/topics/dialects.md), or `auto`; or serve the checkpoint with "
        "OpenPI's serve_policy.py or `pi05-websocket serve`.",
    ),
    Mistake(
        "metadata-width",
        "metadata",
        "refused",
        "The server's actions or its state are for another number of joints.",
        "Serve the policy of this arm, or choose the key map of the policy's robot.",
    ),
    Mistake(
        "metadata-joints",
        "metadata",
        "refused",
        "The server names its joints in another order, or other joints.",
        "Give the server's order as joint_names (--policy.joint_names, KeyMap.joint_names).",
    ),
    Mistake(
        "metadata-keys",
        "metadata",
        "refused",
        "The server says which observation keys it reads, and the key map does not send them.",
        "Choose the key map that has them (--keymap), or map your cameras to them (--cameras).",
    ),
    Mistake(
        "metadata-image-size",
        "metadata",
        "refused",
        "The server says which image size it reads, and another one would be sent.",
        "Add the fit to the camera: --cameras NAME 'KEY pad HEIGHTxWIDTH'.",
    ),
    Mistake(
        "metadata-rate",
        "metadata",
        "refused",
        "The policy was trained at another control rate.",
        "Set --fps, --control-hz or --policy.control_hz to the server's rate: otherwise every motion has the "
        "wrong speed.",
    ),
    Mistake(
        "keys-of-another-policy",
        "answer",
        "refused",
        "The server reads keys of another preset (`KeyError: 'observation/image'`).",
        "Choose the preset that has the key.",
    ),
    Mistake(
        "keys-nobody-knows",
        "answer",
        "refused",
        "The server reads a key that no preset has.",
        "Send a camera or the state under that key: --cameras NAME 'KEY pad 224x224', or state_key.",
    ),
    Mistake(
        "camera-names-of-aloha",
        "answer",
        "refused",
        "A server with ALOHA's transform: it takes its own camera names only.",
        "Choose --keymap aloha, or so101_aloha for a server of six joints.",
    ),
    Mistake(
        "image-layout",
        "answer",
        "refused",
        "The server wants its images in another shape: nested, channels first, another size.",
        "Use the preset of the server's family; ALOHA's is channel-first, all others send rows first.",
    ),
    Mistake(
        "prompt-required",
        "answer",
        "refused",
        "The task is empty, and the server has no default (`Prompt is required`).",
        "Give the data set's instruction: --task 'pick up the red cube'.",
    ),
    Mistake(
        "state-width-for-stats",
        "answer",
        "refused",
        "The state has another width than the checkpoint's norm stats (a broadcast error).",
        "Choose the key map with the policy's number of joints, or serve with the norm stats of this robot's "
        "data set.",
    ),
    Mistake(
        "endpoint-missing",
        "answer",
        "refused",
        "A RoboArena server: it wants `endpoint` in each request.",
        "Serve the checkpoint with OpenPI's serve_policy.py, or with `pi05-websocket serve`.",
    ),
    Mistake(
        "server-codec",
        "answer",
        "refused",
        "The server reads PyPI's msgpack-numpy: arrays arrive there as maps.",
        "Use OpenPI's own msgpack_numpy in the server, or `pi05-websocket serve --policy module:factory`.",
    ),
    Mistake(
        "server-out-of-memory",
        "answer",
        "refused",
        "The server's accelerator has no memory left.",
        "End other programs on it, or load the model in bfloat16.",
    ),
    Mistake(
        "server-error",
        "answer",
        "refused",
        "The policy fails with an error that is not known here.",
        "Read the server's log from the line that is shown.",
    ),
    Mistake(
        "no-answer-in-time",
        "answer",
        "refused",
        "The first answer does not come: the model compiles, or the server hangs.",
        "Wait and try again, with a longer --patience; look at the server's log.",
    ),
    Mistake(
        "answer-not-a-chunk",
        "answer",
        "refused",
        "The answer holds no action chunk: another key, one row, a batch, text.",
        "The policy must return {'actions': array (rows, joints)} for one observation.",
    ),
    Mistake(
        "answer-not-finite",
        "answer",
        "refused",
        "The actions hold NaN or infinity.",
        "Check the checkpoint's norm stats (a standard deviation of 0) and the observation's units.",
    ),
    Mistake(
        "answer-width",
        "answer",
        "refused",
        "An action has another number of values than the robot has joints.",
        "Serve the policy of this arm; LIBERO's has 7 values, an SO-101's 6.",
    ),
    Mistake(
        "answer-padded",
        "answer",
        "refused",
        "The actions come as wide as the model (32): the output transform does not cut the padding.",
        "Return actions[:, :6] in the server's output transform, for six joints.",
    ),
    Mistake(
        "answer-of-zeros",
        "answer",
        "refused",
        "Every value of the chunk is 0: the arm would go to the middle of its range.",
        "Serve the trained checkpoint and not an untrained or a dummy policy; check its norm stats.",
    ),
    Mistake(
        "answer-in-radians",
        "answer",
        "refused",
        "The actions are the pose in radians, the robot counts degrees.",
        "Set --policy-units radians --robot-units lerobot (--policy.policy_units, --policy.robot_units).",
    ),
    Mistake(
        "answer-of-deltas",
        "answer",
        "refused",
        "The actions are small numbers about 0 whatever the pose is: differences, sent as targets.",
        "Let the server answer targets (with OpenPI: AbsoluteActions in its output transforms), or say what "
        "they are: --policy.action_kind=delta with LeRobot, KeyMap.action_kind without.",
    ),
    Mistake(
        "answer-sign",
        "answer",
        "look",
        "The first action is the pose of a joint with the other sign.",
        "Do the task by hand in shadow mode, which shows the sign; then --policy.joint_signs='{JOINT: -1}' "
        "with LeRobot, unit_map(signs=...) without.",
    ),
    Mistake(
        "answer-order",
        "answer",
        "look",
        "The first action is the pose with joints exchanged.",
        "If it is so, give the policy's order as joint_names (--policy.joint_names, KeyMap.joint_names).",
    ),
    Mistake(
        "answer-offset",
        "answer",
        "look",
        "The first action of a joint is a quarter or a half turn away from its pose: another zero.",
        "If it is so, calibrate as for the data set, or: --policy.joint_offsets='{JOINT: 90}' with LeRobot, "
        "unit_map(offsets=...) without.",
    ),
    Mistake(
        "answer-gripper-fraction",
        "answer",
        "look",
        "The gripper's action is 0 to 1, the robot counts 0 to 100.",
        "Set --policy.policy_joint_units='{gripper: fraction}' with LeRobot, "
        "unit_map(policy_units=...) without.",
    ),
    Mistake(
        "answer-far",
        "answer",
        "look",
        "The first action is far from the pose, and no known mistake explains it.",
        "Look at the table: is the arm where the policy's episodes begin? If yes: units, sign, order; "
        "shadow mode tells which.",
    ),
    Mistake(
        "rates-differ",
        "timing",
        "refused",
        "In LeRobot's words: the loop's rate (`--fps`, 30 where it is left out) is another than the policy's.",
        "Set both to the rate of the policy's data set: with LeRobot --fps and --policy.control_hz.",
    ),
    Mistake(
        "horizon-beyond-chunk",
        "timing",
        "refused",
        "action_horizon is more than the chunk has rows.",
        "Leave action_horizon out, or set it to half of the chunk.",
    ),
    Mistake(
        "delay-too-long",
        "timing",
        "refused",
        "An answer takes longer than half of the chunk: the arm would pause in every chunk.",
        "Use a nearer or faster server, a longer chunk, or a lower control rate.",
    ),
    Mistake(
        "uplink-too-slow",
        "timing",
        "refused",
        "The images take so long to send that the arm would pause in every chunk.",
        "Resize before sending: --cameras NAME 'KEY pad 224x224', or a server that reads JPEG.",
    ),
    Mistake(
        "joint-missing",
        "robot",
        "refused",
        "The robot has no joint of that name.",
        "Give the robot's names, in the policy's order, as joint_names.",
    ),
    Mistake(
        "joint-count",
        "robot",
        "refused",
        "The robot has another number of joints than the policy's state.",
        "Choose the key map of this arm (--keymap).",
    ),
    Mistake(
        "joint-not-finite",
        "robot",
        "refused",
        "A joint's position is no number.",
        "Check the servo's cable and its calibration: lerobot-calibrate.",
    ),
    Mistake(
        "robot-unreadable",
        "robot",
        "refused",
        "The robot or one of its cameras cannot be read at all.",
        "Check cable, power and port; LeRobot's own message is shown.",
    ),
    Mistake(
        "calibration-differs",
        "robot",
        "refused",
        "The calibration file is not the one that the motors hold.",
        "Use the same --robot.id as for lerobot-calibrate, or calibrate anew.",
    ),
    Mistake(
        "pose-beyond-calibration",
        "robot",
        "refused",
        "A joint is outside of its calibrated range.",
        "Take the calibration file of this arm, or calibrate anew; another unit looks like this too.",
    ),
    Mistake(
        "robot-units",
        "robot",
        "refused",
        "The driver counts -100 to 100 and the policy degrees, or the other way round.",
        "Set --robot-units and --policy-units to what they are (--policy.robot_units, "
        "--policy.policy_units), or "
        "drive with --robot.use_degrees as the data set was recorded.",
    ),
    Mistake(
        "robot-in-radians",
        "robot",
        "look",
        "All joints are within -3.2 to 3.2: radians, where degrees are expected.",
        "If the arm is not stretched out straight: --robot-units radians (--policy.robot_units=radians).",
    ),
    Mistake(
        "gripper-not-percent",
        "robot",
        "refused",
        "The gripper is outside of 0 to 100.",
        "Calibrate the gripper; for a driver that counts degrees: "
        "--policy.robot_joint_units='{gripper: degrees}' with LeRobot, unit_map(robot_units=...) without.",
    ),
    Mistake(
        "units-unsaid",
        "robot",
        "needs dataset",
        "Neither the server nor the settings say the policy's units.",
        "Replay an episode with --dataset, or see how it was recorded (LeRobot since 0.4.4: degrees), and set "
        "--policy-units lerobot.",
    ),
    Mistake(
        "sign-and-order-unsaid",
        "robot",
        "needs dataset",
        "The server does not name its joints: their signs and their order cannot be seen.",
        "Replay an episode of its data set with --dataset; shadow mode shows a wrong sign "
        "before the policy moves anything.",
    ),
    Mistake(
        "loop-too-slow",
        "robot",
        "refused",
        "Reading the robot takes longer than a tick: the loop cannot keep the control rate.",
        "Use smaller or MJPG camera images, fewer cameras, or a policy of a lower rate.",
    ),
    Mistake(
        "camera-missing",
        "cameras",
        "refused",
        "The policy needs a camera that the robot does not have.",
        "Map one that exists: --cameras MY_CAMERA POLICY_CAMERA.",
    ),
    Mistake(
        "camera-unused",
        "cameras",
        "look",
        "A camera of the robot is not sent.",
        "If the policy was trained with it, map it: --cameras MY_CAMERA POLICY_CAMERA.",
    ),
    Mistake(
        "camera-black",
        "cameras",
        "refused",
        "A camera's picture is black.",
        "Take the lens cap off, switch the light on, close other programs that use the camera.",
    ),
    Mistake(
        "camera-uniform",
        "cameras",
        "refused",
        "A camera's picture has one colour: covered, overexposed, or no picture at all.",
        "Uncover it; let the exposure settle; try another USB port.",
    ),
    Mistake(
        "camera-frozen",
        "cameras",
        "look",
        "A camera's picture did not change by a single bit: real ones have noise.",
        "Move a hand before it and run again; if it stays, reconnect the camera.",
    ),
    Mistake(
        "camera-slow",
        "cameras",
        "look",
        "A camera gives fewer pictures than the control rate needs.",
        "Set fourcc: MJPG and fps: 30, give it a USB port of its own, or switch automatic exposure off.",
    ),
    Mistake(
        "cameras-same-picture",
        "cameras",
        "refused",
        "Two policy keys get the same picture.",
        "Give each camera its own index_or_path or serial number.",
    ),
    Mistake(
        "camera-size",
        "cameras",
        "refused",
        "A camera has another size than the policy wants, and nothing resizes it.",
        "Set the camera to that size, or add 'pad HEIGHTxWIDTH' after its policy key.",
    ),
    Mistake(
        "image-numbers",
        "cameras",
        "refused",
        "A picture's numbers are neither 0..255 as uint8 nor 0..1 as floats.",
        "Hand over what the camera gives: uint8, rows x columns x RGB.",
    ),
    Mistake(
        "cameras-exchanged",
        "cameras",
        "look",
        "The wrist camera's picture goes out as the scene camera's.",
        "Look at the contact sheet; exchange the names with --cameras.",
    ),
    Mistake(
        "camera-upside-down",
        "cameras",
        "look",
        "A camera is mounted the other way round than in the data set.",
        "Look at the contact sheet; set the camera's rotation: 180.",
    ),
    Mistake(
        "camera-colours",
        "cameras",
        "look",
        "Red and blue are exchanged (BGR).",
        "Look at the contact sheet: if the small picture looks right, set color_mode: rgb, or convert.",
    ),
    Mistake(
        "prompt-missing",
        "prompt",
        "look",
        "No task is given: the server uses its default, whatever that is.",
        "Give the data set's instruction: --task 'pick up the red cube'.",
    ),
    Mistake(
        "prompt-too-long",
        "prompt",
        "refused",
        "The task is longer than the 200 tokens that pi0.5 reads, state included: its end is cut off.",
        "Say it in fewer words, as in the data set.",
    ),
    Mistake(
        "dataset-prompt",
        "data set",
        "look",
        "With --dataset: the task is none of the data set's.",
        "Use the data set's words to the letter.",
    ),
    Mistake(
        "dataset-rate",
        "data set",
        "refused",
        "With --dataset: it was recorded at another rate.",
        "Set --fps, --control-hz or --policy.control_hz to the data set's.",
    ),
    Mistake(
        "dataset-sign",
        "data set",
        "refused",
        "With --dataset: the policy counts a joint the other way round than the recorded actions.",
        "Set --policy.joint_signs='{JOINT: -1}' with LeRobot, unit_map(signs=...) without.",
    ),
    Mistake(
        "dataset-order",
        "data set",
        "refused",
        "With --dataset: the policy's joints are in another order than the recorded ones.",
        "Give the policy's order as joint_names.",
    ),
    Mistake(
        "dataset-units",
        "data set",
        "refused",
        "With --dataset: the policy's numbers are the recorded ones times a constant, another unit.",
        "Set --policy-units to what the policy uses (with LeRobot --policy.policy_units, "
        "--policy.policy_joint_units).",
    ),
    Mistake(
        "dataset-offset",
        "data set",
        "refused",
        "With --dataset: the policy's numbers are the recorded ones plus a constant, another zero.",
        "Set --policy.joint_offsets with LeRobot, unit_map(offsets=...) without, or calibrate as for the data "
        "set.",
    ),
    Mistake(
        "dataset-far",
        "data set",
        "look",
        "With --dataset: the policy is farther from the recorded actions than standing still.",
        "Another checkpoint, other norm stats, cameras exchanged; or this is not its data set.",
    ),
)

MISTAKES: Mapping[str, Mistake] = MappingProxyType({mistake.name: mistake for mistake in _ALL})
"""Name to mistake, in the order of the documentation."""

_VERDICTS = {"refused": "refused", "look": "a person's eye", "needs dataset": "needs a data set"}


def markdown_table() -> str:
    """Return all mistakes as a Markdown table, one row each."""
    lines = ["| name | mistake | verdict | fix |", "|---|---|---|---|"]
    for mistake in MISTAKES.values():
        cells = (f"`{mistake.name}`", mistake.what, _VERDICTS[mistake.verdict], mistake.fix)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
