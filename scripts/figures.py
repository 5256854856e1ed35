# SPDX-License-Identifier: Apache-2.0
"""Measured figures as Markdown: the documents quote what a benchmark wrote, never a number typed by hand.

In: the JSON files of docs/figures, as the benchmarks' `--json` writes them. Out: tables. A figure that has not
been measured is a sentence about how to.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pi05_websocket.conformance.clauses import GROUPS, PROTOCOL_VERSION, markdown_clauses

__all__ = [
    "BLOCKS",
    "FIGURES",
    "batches",
    "changed_checkouts",
    "demo",
    "expert_success",
    "failover",
    "learned",
    "ray_nodes",
    "real",
    "relay",
    "round_trip",
    "scale_out",
    "server_load",
    "soak",
]

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures"
DISTANCE_PICTURE = ROOT / "docs" / "images" / "distance.png"
DEMO_PICTURE = ROOT / "docs" / "images" / "demo.png"

PAIRINGS = {
    "ours / ours": "this project / this project",
    "ours / stock server": "this project / OpenPI",
    "stock client / ours": "OpenPI / this project",
    "stock / stock": "OpenPI / OpenPI",
    "raw TCP": "the same bytes over plain TCP",
}
"""The benchmark's name of a pairing -> the reader's, in the order of the table."""

SERVERS = {"stock": "OpenPI's server", "ours": "this project's"}
"""The gateway benchmark's name of a server -> the reader's, in the order of the table."""

TASKS = {
    "cube": "cube at rest",
    "belt": "cube on a moving belt",
    "moved": "cube that is moved while the arm is on its way",
}


def changed_checkouts() -> Iterator[str]:
    """Yield the figures that were measured at files which no commit has: nobody can measure them again."""
    for path in sorted(FIGURES.glob("*.json")):
        figures = json.loads(path.read_text(encoding="utf-8"))
        where = figures.get("machine")
        kept = figures.get("commit") or (where.get("commit") if isinstance(where, dict) else "")
        commit = str(kept or "unknown")
        if commit.endswith(("+", "unknown")):
            yield (
                f"{path.relative_to(ROOT)}: measured at commit {commit}, expected one without "
                "changes: commit, then measure again"
            )


def round_trip_block() -> str:
    """Return the round-trip table, or how to get one."""
    path = FIGURES / "round_trip.json"
    if not path.exists():
        return "`make bench-round-trip` measures it on your machine."
    return round_trip(json.loads(path.read_text(encoding="utf-8")))


def round_trip(figures: dict[str, Any]) -> str:
    """Return the table of `benchmarks/round_trip.py --json`."""
    rows = [
        "| client / server | median | 99th percentile | OpenPI's median is |",
        "|---|---|---|---|",
    ]
    for name, shown in PAIRINGS.items():
        pairing = figures["pairings"][name]
        times = f"{pairing['p50_ms']:.2f} ms | {pairing['p99_ms']:.2f} ms"
        rows.append(f"| {shown} | {times} | {pairing['stock_over_this']:.2f} x as long |")
    where = figures["machine"]
    rows += [
        "",
        f"{figures['request_bytes'] / 1e6:.2f} MB there, 6 kB back, between two processes, "
        f"{figures['rounds']} turns of {figures['calls']} round trips each, in random order.",
        f"Measured with `make bench-round-trip` on {where['cpu']}, Python {where['python']}, "
        f"at commit {where['commit']}; ratios are medians over the turns.",
    ]
    return "\n".join(rows)


def failover_block() -> str:
    """Return what a kill and a cut cost, or how to get to know."""
    path = FIGURES / "failover.json"
    if not path.exists():
        return "`.venv/bin/python benchmarks/failover.py` measures it."
    return failover(json.loads(path.read_text(encoding="utf-8")))


def _cable_row(cable: dict[str, Any]) -> str:
    return (
        f"| cable of {cable['round_trip_ms']:g} ms between two kernels: every packet lost for "
        f"{cable['seconds']:g} s, {cable['cuts']} times: from then to the next answer | "
        f"median {cable['answer_median_ms']:.0f} ms, longest {cable['answer_longest_ms']:.0f} ms; over a "
        f"connection that is there {cable['warm_ms']:.0f} ms |"
    )


def failover(figures: dict[str, Any]) -> str:
    """Return the table of `benchmarks/failover.py --json`."""
    kill, cut, where = figures["kill"], figures["cut"], figures["machine"]
    under_way = kill["request_under_way"]
    jump = f"{cut['largest_step']:.3g} of {cut['largest_step_allowed']:.3g} allowed"
    rows = [
        "| what | measured |",
        "|---|---|",
        f"| `kill -9` of the primary, {kill['kills']} times: time to the next usable chunk | "
        f"median {kill['median_ms']:.0f} ms, 99th percentile {kill['p99_ms']:.0f} ms |",
        f"| {under_way['kills']} of them with a request under way | "
        f"median {under_way['median_ms']:.0f} ms, 99th percentile {under_way['p99_ms']:.0f} ms |",
        f"| held ticks in the {kill['with_half_a_second_of_rows']} with rows for 0.5 s or more | "
        f"{kill['held_ticks_of_those']} |",
        f"| stale actions | {kill['stale_actions']} |",
        f"| link to an only server cut for {cut['seconds']:g} s, {cut['cuts']} times: rows left when the hold "
        f"began | {cut['most_rows_left_at_hold']} at most |",
        f"| from mending the link to the first row | median {cut['resume_median_ms']:.0f} ms, longest "
        f"{cut['resume_longest_ms']:.0f} ms |",
        f"| largest step of a joint's target | {jump} |",
        f"| stale actions | {cut['stale_actions']} |",
        *map(_cable_row, figures.get("cables", [])),
        "",
        "Four servers on the same machine, 50 ms inference, 50 rows at 50 Hz, a request every 10 ticks; a "
        "killed server is started again on its port. With no request under way, the time to the next chunk is "
        "mostly the time until one is due.",
        f"Measured with `benchmarks/failover.py` on {where['cpu']}, Python {where['python']}, at commit "
        f"{where['commit']}.",
    ]
    return "\n".join(rows)


def idle_link_block() -> str:
    """Return what a pause costs, or how to get to know."""
    path = FIGURES / "idle_link.json"
    if not path.exists():
        return "`.venv/bin/python benchmarks/idle_link.py` measures it."
    return idle_link(json.loads(path.read_text(encoding="utf-8")))


def idle_link(figures: dict[str, Any]) -> str:
    """Return the table of `benchmarks/idle_link.py --json`."""
    rows = [
        "| client, images | bytes | of raw | median | 99th percentile | times what the bytes need |",
        "|---|---|---|---|---|---|",
    ]
    for name, way in figures["ways"].items():
        shown = name.replace("stock", "OpenPI's").replace("ours", "this project's")
        rows.append(
            f"| {shown.replace(', cold', ', without pongs')} | {way['bytes'] / 1000:.0f} kB | "
            f"{way['of_raw']:.2f} | {way['p50_ms']:.0f} ms | {way['p99_ms']:.0f} ms | {way['ratio']:.2f} |"
        )
    where = figures["machine"]
    rows += [
        "",
        f"{figures['mbit']:g} Mbit/s and {figures['rtt_ms']:g} ms, an observation every "
        f"{figures['every_s']:g} s, {figures['count']} of each, a policy that answers at once; kernel TCP with "
        f"{figures['congestion'].upper()} at both ends. What the bytes need: size / rate + round trip.",
        f"Measured with `benchmarks/idle_link.py` on {where['machine']}, at commit {where['commit']}.",
    ]
    return "\n".join(rows)


def expert_block() -> str:
    """Return the table of the expert's successes, or how to get one."""
    paths = sorted(FIGURES.glob("expert_success*.json"))
    if not paths:
        return "`.venv/bin/python benchmarks/expert_success.py` measures it."
    return expert_success([json.loads(path.read_text(encoding="utf-8")) for path in paths])


def expert_success(runs: list[dict[str, Any]]) -> str:
    """Return the table of some runs of `benchmarks/expert_success.py --json`."""
    rows = [
        "| task | added latency | succeeded | 95 % interval (Wilson) | median time | slowest |",
        "|---|---|---|---|---|---|",
    ]
    for run in sorted(runs, key=by_task_and_latency):
        low, high = run["wilson_95"]
        cells = (
            TASKS[run["task"]],
            f"{run['latency_ms']:g} ms",
            f"{run['successes']} of {run['episodes']}",
            f"{low:.1%} to {high:.1%}",
            seconds(run["median_s"]),
            seconds(run["slowest_s"]),
        )
        rows.append(f"| {' | '.join(cells)} |")
    where = runs[0]
    commits = ", ".join(sorted({run["commit"] for run in runs}))
    return "\n".join(
        [
            *rows,
            "",
            f"Measured with `benchmarks/expert_success.py` on {where['machine']}, at commit {commits}.",
        ]
    )


def seconds(value: float | None) -> str:
    """Return a duration as text; a dash where there is none."""
    return "-" if value is None else f"{value:.1f} s"


def distance_block() -> str:
    """Return success against distance: the plot, the tables of 50 rows, and whether the aim is met."""
    path = FIGURES / "latency.json"
    if not path.exists():
        return "`make bench` measures it."
    return distance(json.loads(path.read_text(encoding="utf-8")))


def distance(results: dict[str, Any]) -> str:
    """Return the section of `pi05-websocket bench latency --full`'s `results.json`."""
    from pi05_websocket.bench.report import aim, table

    cells = results["cells"]
    parts = []
    if DISTANCE_PICTURE.exists():
        parts.append(
            "![Success and time to success against the round trip](../images/distance.png)"
        )
    for task in ("cube", "belt", "moved"):
        if not any(cell["task"] == task for cell in cells):
            continue
        parts += [f"{TASKS[task].capitalize()}:", table(cells, task, 50)]
    parts.append("\n".join(f"- {line}" for line in aim(cells)))
    episodes = sum(cell["episodes"] for cell in cells)
    parts.append(
        f"{episodes:,} episodes in {len(cells)} cells, on {results['machine']}, at commit "
        f"{results['commit']}; all of them in [docs/figures/latency.json](../figures/latency.json)."
    )
    return "\n\n".join(parts)


def learned_block() -> str:
    """Return what learned policies make of distance, or how to measure it."""
    path = FIGURES / "learned.json"
    if not path.exists():
        return "`pi05-websocket bench latency --policy lerobot:CHECKPOINT` measures it."
    return learned(json.loads(path.read_text(encoding="utf-8")))


def learned(results: dict[str, Any]) -> str:
    """Return the tables of `pi05-websocket bench latency --policy lerobot:...`'s `results.json`."""
    from pi05_websocket.bench.report import table

    cells = results["cells"]
    parts = []
    for task in dict.fromkeys(cell["task"] for cell in cells):
        for horizon in dict.fromkeys(cell["horizon"] for cell in cells if cell["task"] == task):
            parts += [
                f"{TASKS[task].capitalize()}, {horizon} rows:",
                table(cells, task, horizon),
            ]
    episodes = sum(cell["episodes"] for cell in cells)
    fewest, most = (choose(cell["episodes"] for cell in cells) for choose in (min, max))
    each = f"{most}" if fewest == most else f"{fewest} to {most}"
    parts.append(
        f"{episodes:,} episodes, {each} in each cell, on {results['machine']}, at commit "
        f"{results['commit']}; 95 % intervals are in "
        "[docs/figures/learned.json](../figures/learned.json)."
    )
    return "\n\n".join(parts)


def demo_block() -> str:
    """Return the table of demo runs, or how to get one."""
    paths = sorted(FIGURES.glob("demo_*.json"))
    if not paths:
        return "`make demo` measures it."
    return demo([json.loads(path.read_text(encoding="utf-8")) for path in paths])


def demo(runs: list[dict[str, Any]]) -> str:
    """Return the table of some runs' `summary.json`."""
    rows = [
        "| task | added latency | picked up | control rate | round trip, median and 99th percentile | "
        "inference delay in ticks | held ticks |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in sorted(runs, key=by_task_and_latency):
        trip = run["round_trip_ms"]
        cells = (
            TASKS[run["task"]],
            f"{run['added_latency_ms']:g} ms",
            f"{run['successes']} of {run['episodes']}",
            f"{run['control_hz']:.1f} Hz",
            f"{trip['p50']:.0f} ms, {trip['p99']:.0f} ms",
            f"{run['delay_ticks']['p50']:g}",
            f"{run['held_ticks']} of {run['ticks']}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def by_task_and_latency(run: dict[str, Any]) -> tuple[bool, float]:
    """Sort key: the cube at rest first, less latency before more."""
    return run["task"] != "cube", run.get("added_latency_ms", run.get("latency_ms", 0.0))


def demo_picture() -> str:
    """Return the demo's picture, once there is one."""
    if not DEMO_PICTURE.exists():
        return ""
    alt = (
        "What make demo leaves: both cameras, the joints with the chunks' borders, the round trips"
    )
    return f"![{alt}]({DEMO_PICTURE.relative_to(ROOT)})"


def batches_block() -> str:
    """Return how far batches differ from single requests, or how to measure it."""
    path = FIGURES / "batches.json"
    if not path.exists():
        return "`benchmarks/batches.py --json docs/figures/batches.json` measures it."
    return batches(json.loads(path.read_text(encoding="utf-8")))


def batches(figures: dict[str, Any]) -> str:
    """Return the table of `benchmarks/batches.py --json`, without its times: they are of tiny policies."""
    rows = [
        "| policy | passes | largest difference | with a prefix |",
        "|---|---|---|---|",
    ]
    for one in figures["policies"]:
        cells = [one["policy"], "one for all" if one["batch"] else "one for each"]
        for name in ("free", "following"):
            found = one.get(name)
            cells.append("" if found is None else difference(found["largest_difference"]))
        rows.append(f"| {' | '.join(cells)} |")
    rows += [
        "",
        f"{figures['robots']} requests together and each alone, in degrees; tiny policies with random weights, "
        f"{figures['machine']}, at commit {figures['commit']}.",
    ]
    return "\n".join(rows)


def difference(degrees: float) -> str:
    """Return a difference in the reader's words."""
    return f"{degrees:.5f}" if degrees else "none, to the bit"


def real_block() -> str:
    """Return how the sample over real sockets compares, or how to measure it."""
    path = FIGURES / "real.json"
    if not path.exists():
        return "`pi05-websocket bench real` measures it."
    return real(json.loads(path.read_text(encoding="utf-8")))


def real(results: dict[str, Any]) -> str:
    """Return the tables of `pi05-websocket bench real`'s `real.json`."""
    from pi05_websocket.bench.links import LINKS
    from pi05_websocket.bench.real_report import comparison_table, round_trip_table

    episodes = sum(cell["real"]["episodes"] for cell in results["cells"])
    return "\n\n".join(
        [
            "Round trips of a raw observation, 50 ms of inference included:",
            round_trip_table(results["round_trips"], list(LINKS.values())),
            "Episodes:",
            comparison_table(results["cells"]),
            f"{episodes} episodes in real time, on {results['machine']}, at commit {results['commit']}; all of "
            "it in [docs/figures/real.json](../figures/real.json).",
        ]
    )


def server_load_block() -> str:
    """Return how many robots two servers serve, or how to measure it."""
    path = FIGURES / "server_load.json"
    if not path.exists():
        return "`.venv/bin/python benchmarks/server_load.py` measures it on your machine."
    return server_load(json.loads(path.read_text(encoding="utf-8")))


def server_load(figures: dict[str, Any]) -> str:
    """Return the tables of `benchmarks/server_load.py --json`."""
    where = figures["machine"]
    return "\n".join(
        [
            "Answers a second, time to an answer (median / 99th percentile), answers later than 0.5 s, the "
            "worst health check, and CPU for each observation; OpenPI's server, then this one:",
            "",
            "| policy | robots | a second | ms | late | health, ms | CPU, ms |",
            "|---|---|---|---|---|---|---|",
            *map(_load_row, figures["cells"]),
            "",
            "The policy takes 20 ms and 2 ms for each observation of a batch (*batched*), or 20 ms for each, "
            "one after the other (*single*). Robots ask as soon as they have an answer, or twice a second.",
            "Measured with `benchmarks/server_load.py`, the robots on the same cores, on "
            f"{where['cpu']}, Python {where['python']}, at commit {where['commit']}.",
        ]
    )


def _load_row(cell: dict[str, Any]) -> str:
    pair = [cell["stock"], cell["ours"]]
    columns = [
        cell["policy"],
        f"{cell['clients']}{' at 2 Hz' if cell['at_a_rate'] else ''}",
        " → ".join(f"{one['throughput']:.0f}" for one in pair),
        " → ".join(f"{one['p50_ms']:.0f} / {one['p99_ms']:.0f}" for one in pair),
        " → ".join(f"{one['missed']:.0%}" for one in pair),
        " → ".join(f"{one['health_max_ms']:.0f}" for one in pair),
        " → ".join(f"{one['cpu_ms']:.2f}" for one in pair),
    ]
    return f"| {' | '.join(columns)} |"


def server_metrics() -> str:
    """Return the table of the server's metrics, from the code."""
    from pi05_websocket.ops.metrics import table

    return table()


def ops_overhead_block() -> str:
    """Return what watching a server costs, or how to measure it."""
    path = FIGURES / "ops_overhead.json"
    if not path.exists():
        return "`.venv/bin/python benchmarks/ops_overhead.py` measures it."
    return ops_overhead(json.loads(path.read_text(encoding="utf-8")))


def ops_overhead(said: dict[str, Any]) -> str:
    """Return the table of `benchmarks/ops_overhead.py --json`."""
    rows = [
        "| operations port | processor time per observation | of that for watching | observations a second |",
        "|---|---|---|---|",
    ]
    names = {"without": "none", "with": "open, scraped every 5 s", "looked at": "and a page open"}
    for kind, shown in names.items():
        found = said["figures"][kind]
        rows.append(
            f"| {shown} | {found['cpu_us']:.0f} µs | {found['accounted_us']:.1f} µs, "
            f"{found['accounted_share']:.1%} | {found['per_second']:.0f} |"
        )
    rows += [
        "",
        f"{said['robots']} robots that ask as soon as they are answered (1.07 MB), a policy that answers "
        "at once: with a real one the share is smaller.",
        f"Measured with `benchmarks/ops_overhead.py` at a load of {said['load_before']:.1f}, at commit "
        f"{said['commit']}.",
    ]
    return "\n".join(rows)


def relay_block() -> str:
    """Return what a gateway costs and saves, or how to find out."""
    path = FIGURES / "relay.json"
    if not path.exists():
        return "`python benchmarks/relay.py` measures it on your machine."
    return relay(json.loads(path.read_text(encoding="utf-8")))


def relay(figures: dict[str, Any]) -> str:
    """Return the tables of `benchmarks/relay.py --json`."""
    trips, faults, where = figures["round trip"], figures["faults"], figures["machine"]
    rows = [
        "| behind it | observation | alone | through the gateway | more |",
        "|---|---|---|---|---|",
    ]
    for server, shown in SERVERS.items():
        for size in figures["request_bytes"]:
            direct, through = (trips[f"{server}, {size}, {way}"] for way in ("direct", "gateway"))
            rows.append(
                f"| {shown} | {size} | {direct['p50_ms']:.1f} ms | {through['p50_ms']:.1f} ms "
                f"| {through['more_than_direct_ms']:.1f} ms |"
            )
    rows += ["", *under_load(figures["throughput"]), ""]
    rows += [
        f"16 robots at 4 Hz before {SERVERS[server]}, one of two servers killed, later the other frozen: "
        f"{run['lost']:.0f} of {run['requests']:.0f} requests lost, {run['foreign']:.0f} answered with "
        f"another's, the slowest answer after {run['worst_ms'] / 1000:.1f} s."
        for server, run in faults.items()
    ]
    rows += [
        "",
        "A batch of b takes these policies 20 + 2b ms. Measured with `benchmarks/relay.py` on "
        f"{where['cpu']}, Python {where['python']}, at commit {where['commit']}; all processes share that "
        f"machine, others use it too (load {where['load'].split()[0]} at the beginning, "
        f"{where['load at the end'].split()[0]} at the end).",
    ]
    return "\n".join(rows)


def under_load(loads: dict[str, Any]) -> list[str]:
    """Return the table of throughput through a gateway, with most clients."""
    most = max(int(name.split(", ")[2].split()[0]) for name in loads)
    rows = [
        f"{most} clients that ask as soon as they are answered, two servers:",
        "",
        "| behind it | observation | a second | of what the policies can | CPU of the gateway |",
        "|---|---|---|---|---|",
    ]
    for name, load in loads.items():
        server, size, clients, way = name.split(", ", 3)
        if clients == f"{most} clients" and way.startswith("gateway"):
            shown = SERVERS[server] + way.removeprefix("gateway, two")
            rows.append(
                f"| {shown} | {size} | {load['a_second']:.0f} | {100 * load['of_capacity']:.0f} % "
                f"| {load['gateway_cpu_ms']:.1f} ms each |"
            )
    return rows


def soak_block() -> str:
    """Return what a long run did to memory, files, threads and answers, or how to get to know."""
    path = FIGURES / "soak.json"
    if not path.exists():
        return "`make soak` measures it."
    return soak(json.loads(path.read_text(encoding="utf-8")))


def soak(figures: dict[str, Any]) -> str:
    """Return the table of `benchmarks/soak.py --json`."""
    rows = [
        "| process | memory, first and last tenth | growth in an hour (95 %) | open files | threads |",
        "|---|---|---|---|---|",
    ]
    for name, one in figures["processes"].items():
        grows = "started again"
        if one["memory"] is not None:
            grows = "{per_hour:+.1f} MB ({low:+.1f} to {high:+.1f})".format(**one["memory"])
        files, threads = (
            f"{first:.0f}, {last:.0f}" for first, last in (one["fds"], one["threads"])
        )
        memory = "{:.1f} MB, {:.1f} MB".format(*one["rss_mb"])
        rows.append(f"| {name} | {memory} | {grows} | {files} | {threads} |")
    counts, trips, where = figures["counts"], figures["round_trips"], figures["machine"]
    faults = ", ".join(f"{name} {count}" for name, count in figures["faults"].items())
    wrong = counts.get("stale", 0) + counts.get("foreign", 0)
    rows += [
        "",
        f"{figures['robots']} robots for {figures['minutes']:g} minutes, {counts['ticks']:,} ticks, "
        f"{trips['count']:,} round trips. Faults: {faults}. Commands that were another robot's, another "
        f"episode's or another moment's: {wrong}.",
        "",
        "Round trip in the first and the last tenth: median {:.0f} and {:.0f} ms, 99th percentile {:.0f} and "
        "{:.0f} ms.".format(*trips["p50_ms"], *trips["p99_ms"]),
        f"The first {figures['warm_up_s']:.0f} s do not count.",
        f"All processes on {where['cpu']}, Python {where['python']}, load {where['load'].split()[0]} to "
        f"{where['load at the end']}, others use the machine too; at commit {where['commit']}.",
    ]
    return "\n".join(rows)


def scale_out_block() -> str:
    """Return the table of ways to more than one server, or how to get it."""
    path = FIGURES / "scale_out.json"
    if not path.exists():
        return "`.venv/bin/python benchmarks/scale_out.py` measures it."
    return scale_out(json.loads(path.read_text(encoding="utf-8")))


def scale_out(results: dict[str, Any]) -> str:
    """Return the table of `benchmarks/scale_out.py --json`."""
    rows = [
        "| message | clients | way | answers a second | median | over plain | CPU ms: sockets | policies |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in results["cells"]:
        for name, path in cell["paths"].items():
            over = "" if name == "plain" else f"{path['over_plain_ms']:+.1f} ms"
            rows.append(
                f"| {cell['request_bytes'] / 1e6:.2f} MB | {cell['clients']} | {name} "
                f"| {path['throughput']:.0f} | {path['p50_ms']:.1f} ms | {over} "
                f"| {path['front_cpu_ms']:.2f} | {path['policy_cpu_ms']:.2f} |"
            )
    idle = [path["control_cores"] for cell in results["cells"] for path in cell["paths"].values()]
    where = results["machine"]
    loads = [cell["load"] for cell in results["cells"]]
    rows += [
        "",
        "Clients ask again at once; a policy takes 20 ms and 2 ms for each observation of a batch; plain has "
        f"one of them, the others {results['policies']}. CPU is for each observation; Ray's own processes take "
        f"{max(idle):.2f} cores at most beside it. Medians of {results['rounds']} turns, with clients and "
        f"servers together on {where['cpu']}, Python {where['python']}, load {min(loads):.0f} to "
        f"{max(loads):.0f}, at commit {where['commit']}: with many clients it is this machine that is full.",
    ]
    return "\n".join(rows)


def ray_nodes_block() -> str:
    """Return the table of what robots notice of faults, or how to get it."""
    path = FIGURES / "ray_two_nodes.json"
    if not path.exists():
        return "`.venv/bin/python benchmarks/ray_two_nodes.py` measures it."
    return ray_nodes(json.loads(path.read_text(encoding="utf-8")))


def ray_nodes(results: dict[str, Any]) -> str:
    """Return the table of `benchmarks/ray_two_nodes.py --json`."""

    def said(runs: list[dict[str, Any]], name: str, digits: int = 0) -> str:
        values = sorted(run[name] for run in runs)
        text = f"{values[len(values) // 2]:.{digits}f}"
        return (
            f"{text} ({values[0]:.{digits}f} to {values[-1]:.{digits}f})"
            if values[0] < values[-1]
            else text
        )

    rows = [
        "| event | requests | lost, our client | lost, OpenPI's | stale | whole rate after | longest wait |",
        "|---|---|---|---|---|---|---|",
    ]
    for event, runs in results["events"].items():
        rows.append(
            f"| {event} | {said(runs, 'requests')} | {said(runs, 'lost_ours')} | {said(runs, 'lost_stock')} "
            f"| {said(runs, 'stale')} | {said(runs, 'full_rate_s', 1)} s | {said(runs, 'worst_wait_s', 1)} s |"
        )
    where, count = results["machine"], max(len(runs) for runs in results["events"].values())
    loads = [run["load"] for runs in results["events"].values() for run in runs]
    rows += [
        "",
        f"Medians of {count} runs and their range, with everything on {where['cpu']}, load {min(loads):.0f} to "
        f"{max(loads):.0f}, at commit {where['commit']}.",
    ]
    return "\n".join(rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "round trip": round_trip_block,
    "failover": failover_block,
    "expert": expert_block,
    "idle link": idle_link_block,
    "soak": soak_block,
    "demo": demo_block,
    "distance": distance_block,
    "learned": learned_block,
    "real": real_block,
    "server load": server_load_block,
    "relay": relay_block,
    "scale out": scale_out_block,
    "ray nodes": ray_nodes_block,
    "batches": batches_block,
    "demo picture": demo_picture,
    "server metrics": server_metrics,
    "ops overhead": ops_overhead_block,
    "protocol version": lambda: f"Version {PROTOCOL_VERSION}.",
    **{f"clauses {group}": functools.partial(markdown_clauses, group) for group in GROUPS.values()},
}
"""Name of a generated block -> what makes it. Documents have them between two comments."""
