# SPDX-License-Identifier: Apache-2.0
"""The whole examination, in the order in which things are needed: server, robot, answer.

In: a setup, how to reach the server, a robot to read or none. Out: findings and pictures. Moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pi05_websocket.camera_map import shown_key
from pi05_websocket.client import ConnectionConfig
from pi05_websocket.data import Float32Array, Observation, UInt8Array
from pi05_websocket.doctor.check_answer import check_answer, check_rates, check_timing
from pi05_websocket.doctor.check_cameras import check_cameras, sent_pictures
from pi05_websocket.doctor.check_dataset import Episode, check_dataset, check_episode
from pi05_websocket.doctor.check_metadata import check_metadata, check_prompt
from pi05_websocket.doctor.check_robot import check_robot
from pi05_websocket.doctor.facts import AnswerFacts, RobotFacts, Setup
from pi05_websocket.doctor.findings import Finding, found, passed, skipped
from pi05_websocket.doctor.gathering import RobotSource, asked, made_up, replayed, watched
from pi05_websocket.doctor.reaching import reached
from pi05_websocket.errors import ObservationError, Pi05WebsocketError

__all__ = ["Examination", "examine"]

_AGAIN = "Mend what is marked WRONG, and run again."


@dataclass(slots=True)
class Examination:
    """What was found."""

    findings: list[Finding] = field(default_factory=list)
    pictures: Mapping[str, UInt8Array] = field(default_factory=dict)
    """Policy key to what is sent."""

    origins: Mapping[str, str] = field(default_factory=dict)
    """Policy key to the robot's camera."""


def examine(
    setup: Setup,
    connection: ConnectionConfig,
    source: RobotSource | None,
    *,
    seconds: float = 1.5,
    requests: int = 5,
    episode: Episode | None = None,
    frames: int = 20,
) -> Examination:
    """Return what is to be said of a setup.

    Args:
        setup: How the robot will be driven.
        connection: How to reach the server.
        source: The robot; None: only the server is examined.
        seconds: How long to watch the robot.
        requests: Observations to send after the first.
        episode: What was recorded, to be compared with; None: nothing.
        frames: How many of its observations to send.
    """
    done = Examination()
    robot = _robot(done, setup, source, seconds)
    done.findings += [check_prompt(setup), *check_rates(setup)]
    with reached(connection, done.findings) as policy:
        if policy is None:
            why = "the server was not reached"
            done.findings.append(skipped("answer", why, _AGAIN))
            return done
        metadata = policy.get_server_metadata()
        done.findings += check_metadata(metadata, setup)
        observation = _observation(done, setup, robot)
        if observation is None:
            return done
        pose = None if robot is None else _policy_pose(setup, robot)
        answer = asked(policy, observation, pose, setup, requests)
        if episode is not None:
            done.findings += check_episode(episode, setup)
            try:
                found_ = check_dataset(replayed(policy, episode, setup, frames), setup)
            except Pi05WebsocketError as exc:
                found_ = [skipped("data set", f"cannot be replayed: {exc}", _AGAIN)]
            done.findings += found_
    if isinstance(answer, AnswerFacts):
        done.findings += check_answer(answer, setup) + check_timing(answer, setup)
        done.findings += _unsaid(answer, setup) if episode is None else []
    else:
        done.findings.append(answer)
    return done


def _robot(
    done: Examination, setup: Setup, source: RobotSource | None, seconds: float
) -> RobotFacts | None:
    if source is None:
        fix = "Name it with --robot, or in LeRobot's words: --robot.type=..."
        done.findings.append(skipped("robot", "joints and loop need a robot", fix))
        done.findings.append(skipped("cameras", "pictures need a robot", fix))
        return None
    try:
        robot = watched(source, setup, seconds)
    except ObservationError as exc:
        done.findings.append(found("robot", "joint-missing", str(exc)))
        return None
    except Exception as exc:  # a driver may raise anything, and it is the finding
        said = f"{type(exc).__name__}: {exc}"
        done.findings.append(found("robot", "robot-unreadable", said))
        return None
    done.pictures = sent_pictures(robot, setup)
    done.origins = {
        shown_key(camera.policy_key): name for name, camera in setup.key_map.cameras.items()
    }
    done.findings += check_robot(robot, setup) + check_cameras(robot, setup)
    return robot


def _policy_pose(setup: Setup, robot: RobotFacts) -> Float32Array:
    return robot.pose if setup.units is None else setup.units.to_policy(robot.pose)


def _observation(done: Examination, setup: Setup, robot: RobotFacts | None) -> Observation | None:
    """Return what to send: the robot's own, or made up; None where the robot's cannot be."""
    if robot is None:
        if any(finding.mistakes for finding in done.findings if finding.group == "robot"):
            fix = "Mend the robot first, and run again."
            done.findings.append(skipped("answer", "there is no observation to send", fix))
            return None
        return made_up(setup)
    try:
        images = {name: camera.image for name, camera in robot.cameras.items()}
        return setup.key_map.observation(images, _policy_pose(setup, robot), setup.task)
    except ObservationError as exc:
        done.findings.append(skipped("answer", f"no observation can be made: {exc}", _AGAIN))
        return None


def _unsaid(answer: AnswerFacts, setup: Setup) -> list[Finding]:
    """Return what neither the server nor the settings say."""
    findings = []
    if not setup.policy_units and not setup.key_map.unit_system:
        said = "nobody says in which units the policy's numbers are"
        findings.append(found("robot", "units-unsaid", said))
    if not answer.metadata.get("action_names") and not answer.metadata.get("state_names"):
        said = "the server does not name its joints"
        findings.append(found("robot", "sign-and-order-unsaid", said))
    return findings or [passed("robot", "units, names and order are said")]
