"""Runs the benches, prints one table and writes it as JSON: `make bench`, or `python benches/run.py --quick`.

Every figure comes from a process of its own, and contestants take turns, so that what slows the machine for a
while slows all of them. A figure is the median of three runs where nothing else is said.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import plots
import report
from workloads import WORKLOADS, Workload

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = ROOT / ".venv-bench"
MARKS = ("<!-- table: written by benches/run.py --publish -->", "<!-- end of the table -->")
TIMEOUT_S = 900
DIVAN_UNITS = {"ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9}
DIVAN_LINE = re.compile(r"(?P<tree>[│ ]*[├╰]─ )(?P<name>\S+)\s+(?P<fastest>[\d.]+ \S+)?(?P<rest>.*)")


def main() -> int:
    """Reads the arguments and does what they say; the exit code says whether every workload of cloaca ran."""
    arguments = _arguments()
    if arguments.read:
        found = json.loads(arguments.read.read_text())
        found["rows"] = report.table(found["measured"], judge=not found["quick"])
    else:
        found = _measure_all(arguments)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(report.as_text(found["rows"]))
    for what, why in found["skipped"].items():
        print(f"skipped: {what}: {why}")
    print(_machine_text(found))
    if arguments.plots:
        plots.write_all(found["measured"], ROOT / "docs" / "assets")
    if arguments.publish:
        _publish(found)
    return 1 if found["failed"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure cloaca against what people use instead.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no peers: only shows that it runs")
    parser.add_argument("--long", action="store_true", help="also what takes minutes: a million triggers")
    parser.add_argument("--only", metavar="TEXT", help="only workloads whose name contains this")
    parser.add_argument("--plots", action="store_true", help="write the charts into docs/assets")
    parser.add_argument("--publish", action="store_true", help="write the table into BENCHMARKS.md")
    parser.add_argument(
        "--out", type=Path, default=HERE / "results" / "latest.json", help="where the JSON goes"
    )
    parser.add_argument("--read", type=Path, metavar="JSON", help="measure nothing, show an earlier run")
    return parser.parse_args()


def _measure_all(arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.time()
    skipped: dict[str, str] = {}
    failed: list[str] = []
    measured: report.Measured = {}
    machine = _machine()
    peers = None if arguments.quick else _peers_python(skipped)
    for workload in WORKLOADS:
        if arguments.only and arguments.only not in workload.name:
            continue
        if workload.is_long and not (arguments.long or arguments.quick):
            skipped[workload.name] = "takes minutes; add --long"
            continue
        measured[workload.name] = _measure(workload, arguments.quick, peers, skipped, failed)
    if not arguments.quick and (arguments.only is None or arguments.only in "rust"):
        measured["rust"] = {"cloaca": _measure_rust(skipped)}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "took_s": round(time.time() - began),
        "quick": arguments.quick,
        "machine": machine,
        "rows": report.table(measured, judge=not arguments.quick),
        "skipped": skipped,
        "failed": failed,
        "measured": measured,
    }


def _measure(
    workload: Workload, quick: bool, peers: Path | None, skipped: dict[str, str], failed: list[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """All contestants of a workload, in turns."""
    options = workload.options | (workload.quick if quick else {})
    pythons = dict.fromkeys(workload.contestants, Path(sys.executable))
    if peers:
        pythons |= dict.fromkeys(workload.peers, peers)
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    for _ in range(1 if quick else workload.repeats):
        for contestant, python in pythons.items():
            label = f"{workload.name}/{contestant}"
            if label in skipped:
                continue
            print(f"  {label}", file=sys.stderr, flush=True)
            try:
                answers[contestant].append(_ask(python, workload.script, contestant, options))
            except subprocess.SubprocessError as error:
                skipped[label] = _cause(error)
                if contestant in workload.contestants:
                    failed.append(label)
    return {contestant: _spread(figures) for contestant, figures in answers.items() if figures}


def _ask(python: Path, script: str, contestant: str, options: dict[str, object]) -> dict[str, float]:
    command = [str(python), str(HERE / "python" / f"{script}.py"), contestant]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    environment = dict(os.environ)
    if python != Path(sys.executable):
        # The peers' environment doesn't have cloaca, whose `skip()` the bodies return.
        environment["PYTHONPATH"] = str(_package_folder())
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, cwd=ROOT
    )
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _cause(error: subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        return str(error.stderr.strip().splitlines()[-1])
    return str(error)


def _spread(answers: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    figures = {}
    # What is looked at only now and then is not in every answer.
    for name in dict.fromkeys(name for answer in answers for name in answer):
        values = [answer[name] for answer in answers if name in answer]
        figures[name] = {"median": median(values), "low": min(values), "high": max(values)}
    return figures


def _package_folder() -> Path:
    import cloaca

    return Path(cloaca.__file__).resolve().parent.parent


def _peers_python(skipped: dict[str, str]) -> Path | None:
    """The interpreter of the peers' environment, which is made if need be; none if that fails."""
    python = PEERS / "bin" / "python"
    stamp, wanted = PEERS / ".installed", (HERE / "requirements.txt").read_text()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEERS)], check=True)
    except subprocess.SubprocessError as error:
        skipped["all peers"] = f"no environment for them: {error}"
        return None
    (PEERS / ".gitignore").write_text("*\n")
    lines = [line for line in wanted.splitlines() if line and not line.startswith("#")]
    missing = [line for line in lines if not _is_installed(python, line)]
    for line in missing:
        skipped[line] = "cannot be installed here"
    if not missing:
        stamp.write_text(wanted)
    return python


def _is_installed(python: Path, requirement: str) -> bool:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    return subprocess.run(command, check=False).returncode == 0


def _measure_rust(skipped: dict[str, str]) -> dict[str, dict[str, float]]:
    """Medians of the Rust benches, by name and argument."""
    cargo = shutil.which("cargo")
    if cargo is None:
        skipped["rust"] = "there is no cargo"
        return {}
    print("  rust", file=sys.stderr, flush=True)
    command = [cargo, "bench", "--locked", "--manifest-path", str(HERE / "rust" / "Cargo.toml")]
    folder = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target" / "benches"))
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"CARGO_TARGET_DIR": folder}
    )
    if done.returncode != 0:
        skipped["rust"] = done.stderr.strip().splitlines()[-1]
        return {}
    return parse_divan(done.stdout)


def parse_divan(text: str) -> dict[str, dict[str, float]]:
    """The medians in divan's tree; the fastest and the slowest sample are single calls and say little."""
    figures = {}
    parents: list[str] = []
    for line in text.splitlines():
        found = DIVAN_LINE.match(line)
        if found is None:
            continue
        depth = len(found["tree"]) // 3 - 1
        parents = [*parents[:depth], found["name"]]
        cells = found["rest"].split("│")
        if found["fastest"] and len(cells) > 2:
            value, unit = cells[2].split()
            nanoseconds = float(value) * DIVAN_UNITS[unit]
            figures["/".join(parents)] = dict.fromkeys(("median", "low", "high"), nanoseconds)
    return figures


def _machine() -> dict[str, Any]:
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "processor": models[0] if models else platform.machine(),
        "memory_gib": round(memory),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def _machine_text(found: dict[str, Any]) -> str:
    machine = found["machine"]
    text = (
        f"{found['date']}, {machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}, load before {machine['load_before']:.2f}"
    )
    return text + (" — quick: these figures mean nothing" if found["quick"] else "")


def _publish(found: dict[str, Any]) -> None:
    if found["quick"]:
        sys.exit("a quick run is not published")
    path = ROOT / "BENCHMARKS.md"
    before, _, rest = path.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    skipped = "".join(f"\nNot measured: {what} ({why})." for what, why in found["skipped"].items())
    table = f"{_machine_text(found)}.\n{skipped}\n\n{report.as_markdown(found['rows'])}"
    path.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    sys.exit(main())
