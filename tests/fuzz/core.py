"""The C core under AddressSanitizer and UndefinedBehaviorSanitizer, fuzzed under libFuzzer.

    python -m tests.fuzz.core [--seconds 60] [--folder build/fuzz] [-o FILE.json]

Fuzzing begins with real payloads (`tests.fuzz.corpus`) and whatever earlier runs kept in the
folder; inputs that break the core are kept there too, and the exit code is 1. Without clang there
is nothing to be done, which is said. How much of the core the inputs reach is measured at the end.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.benchmarks.environment import environment
from tests.fuzz import corpus

ROOT = Path(__file__).parents[2]
CORE = Path("compressor") / "coding" / "core"
TARGET, REPLAY = "tests/fuzz/fuzz_core.c", "tests/fuzz/replay.c"
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror")
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
COUNTED = ("-fprofile-instr-generate", "-fcoverage-mapping", "-O1")


def compilers() -> list[str]:
    """The C compilers that are there."""
    return [name for name in ("clang", "gcc") if shutil.which(name)]


def sources() -> list[str]:
    """The core's files, from the root of the repository."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / CORE).glob("*.c"))


def build(compiler: str, options: Sequence[str], files: Sequence[str], output: Path) -> None:
    """Compile the core and ``files`` to a program.

    Raises:
        subprocess.CalledProcessError: it does not compile; stderr says why.
    """
    command = [compiler, *STRICT, *options, "-I", CORE.as_posix(), *files, *sources()]
    command += ["-o", str(output.resolve())]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)


def replay(binary: Path, inputs: Sequence[Path], **variables: str) -> str:
    """Run the target on files; what it says.

    Raises:
        subprocess.CalledProcessError: an input broke the core; stderr says how.
    """
    command = [str(binary.resolve()), *map(str, inputs)]
    environ = {**os.environ, **variables}
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    return done.stdout


def fuzz(folder: Path, seconds: int) -> dict[str, Any]:
    """Fuzz for so long; what libFuzzer counted, and the inputs that broke the core."""
    folder.mkdir(parents=True, exist_ok=True)
    binary, kept, seeds = folder / "fuzz_core", folder / "kept", folder / "seeds"
    options = [*SANITIZED, "-fsanitize=fuzzer"]
    build("clang", options, [TARGET], binary)
    kept.mkdir(exist_ok=True)
    shutil.rmtree(seeds, ignore_errors=True)
    given = len(corpus.write(seeds))
    broken = folder / "broken"
    broken.mkdir(exist_ok=True)
    before = set(broken.iterdir())
    flags = [
        f"-max_total_time={seconds}",
        "-print_final_stats=1",
        "-timeout=5",
        "-rss_limit_mb=2048",
    ]
    command = [str(binary), *flags, f"-artifact_prefix={broken}/", str(kept), str(seeds)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    print("\n".join(done.stderr.splitlines()[-30:]), file=sys.stderr)
    stats = dict(re.findall(r"stat::(\w+): +(\d+)", done.stderr))
    return {
        "seconds": seconds,
        "seeds": given,
        "kept": len(list(kept.iterdir())),
        "executed": int(stats.get("number_of_executed_units", 0)),
        "exit_code": done.returncode,
        "broken": sorted(path.name for path in set(broken.iterdir()) - before),
    }


def can_measure() -> bool:
    """Whether there is what `coverage` needs."""
    return all(map(shutil.which, ("clang", "llvm-cov", "llvm-profdata")))


def coverage(folder: Path, inputs: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Percent of each file's functions, lines and branches that ``inputs`` reach, by LLVM."""
    binary, raw, merged = (folder / name for name in ("counted", "counted.raw", "counted.profdata"))
    build("clang", COUNTED, [TARGET, REPLAY], binary)
    replay(binary, inputs, LLVM_PROFILE_FILE=str(raw))
    subprocess.run(["llvm-profdata", "merge", str(raw), "-o", str(merged)], check=True)
    command = ["llvm-cov", "export", str(binary), f"-instr-profile={merged}", "-summary-only"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = {}
    for file in json.loads(done.stdout)["data"][0]["files"]:
        path = Path(file["filename"])
        if path.parent.name == CORE.name:
            parts = ("functions", "lines", "branches")
            found[path.name] = {part: round(file["summary"][part]["percent"], 1) for part in parts}
    return found


def main() -> None:
    """Read the command line; exit with 1 where an input broke the core."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.core")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path("build") / "fuzz")
    parser.add_argument("-o", "--output", type=Path, help="where the result goes")
    options = parser.parse_args()
    if "clang" not in compilers():
        print("skipped: fuzzing needs clang, which is not there", file=sys.stderr)
        return
    record: dict[str, Any] = {"environment": environment()}
    record.update(fuzz(options.folder, options.seconds))
    if can_measure():
        inputs = [path for name in ("kept", "seeds") for path in (options.folder / name).iterdir()]
        record["percent_reached"] = coverage(options.folder, inputs)
    text = json.dumps(record, indent=1) + "\n"
    if options.output:
        options.output.write_text(text)
    print(text, end="")
    sys.exit(1 if record["exit_code"] else 0)


if __name__ == "__main__":
    main()
