"""Several processes: one network, one writer, and an end in bounded time when one is lost."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compressor.recipe import Recipe
from compressor.settings import Prune, Share, Training
from tests.conftest import Compress

RECIPE = Recipe(
    prune=Prune(0.5, retrain=Training(epochs=2, lr=0.05)),
    share=Share(bits=4, finetune=Training(epochs=1, lr=1e-3)),
    threads=1,
)
EPOCH = math.ceil((1437 - 144) / 128)
"""Steps: a tenth of the training images of digits is kept for validation."""

# The command line as one of the ranks. It notes what it writes below the working directory, ends
# itself where a test asks for it, and does not time networks for longer than it must.
RANK = """\
import os, signal, sys
import torch
from compressor.cli import main
from compressor.reporting import latency

latency.MAX_ROUNDS = latency.MIN_ROUNDS
rank, here = os.environ["RANK"], os.getcwd()
log = open(f"{here}/writes-{rank}", "w", buffering=1)

def note(event, args):
    if event == "os.rename":
        path = os.path.abspath(os.fsdecode(args[1]))
    elif event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR):
        path = os.path.abspath(args[0])
    else:
        return
    if path.startswith(here + "/"):
        log.write(f"{event} {path[len(here) + 1:]}\\n")

step, taken = torch.optim.SGD.step, [0]
dies, at = os.environ.get("DIES", ":").split(":")

def stop(self, *args):
    taken[0] += 1
    if rank == dies and taken[0] == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args)

torch.optim.SGD.step = stop
sys.addaudithook(note)
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str
    seconds: float


def torchrun(folder: Path, script: str, *words: object, dies: str = ":") -> Ended:
    """Two ranks of ``script``; whatever is left of them after two minutes is killed."""
    path = folder / "rank.py"
    path.write_text(script)
    begin = time.monotonic()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", str(path), *map(str, words)),
        ],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DIES": dies},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return Ended(process.returncode, out, err, time.monotonic() - begin)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, shelf: Path) -> Path:
    """A folder with a recipe and a network."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "recipe.toml").write_text(RECIPE.to_toml())
    (folder / "net.pt").write_bytes((shelf / "net.pt").read_bytes())
    return folder


WORDS = ("run", "net.pt", "--recipe", "recipe.toml", "--data", "digits")


@pytest.fixture(scope="module")
def together(bench: Path) -> Ended:
    """``two/``: the recipe by two ranks, undisturbed."""
    done = torchrun(bench, RANK, *WORDS, "-o", "two")
    assert done.code == 0, done.err
    return done


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


# ---- the same as one process -------------------------------------------------------------------


def test_two_ranks_train_as_one_does(bench: Path, together: Ended, compress: Compress) -> None:
    """The network draws nothing and has no batch norm: the mean gradients of a batch are the same
    but for rounding, those of the last one too, whose 13 images are shared as 7 and 6. Accuracies
    are within three standard deviations of that of a proportion of 360 images."""
    words = [bench / word if word in ("net.pt", "recipe.toml") else word for word in WORDS]
    assert compress(*words, "-o", bench / "one", "-q").code == 0
    one, two = report(bench / "one"), report(bench / "two")
    for stage in ("prune", "share"):
        alone, shared = one["stages"][stage], two["stages"][stage]
        losses = [[epoch["loss"] for epoch in each["history"]] for each in (alone, shared)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-6)
        p = alone["accuracy"]
        assert shared["accuracy"] == pytest.approx(p, abs=3 * (p * (1 - p) / 360) ** 0.5)
    assert one["stages"]["prune"]["accuracy"] > 0.8, "it has learnt something"
    assert two["fingerprint"] == {**one["fingerprint"], "processes": 2}


def test_the_first_rank_alone_writes_each_file_once_and_prints(
    bench: Path, together: Ended
) -> None:
    first, second = ((bench / f"writes-{rank}").read_text().splitlines() for rank in (0, 1))
    assert second == []
    published = [line.partition(" two/")[2] for line in first if line.startswith("os.rename two/")]
    published = [name for name in published if not name.startswith(".stages/")]
    assert sorted(published) == sorted(each.name for each in (bench / "two").iterdir())
    assert published[-1] == "report.json"
    assert {"net.dcz", "net.onnx", "recipe.toml"} < set(published)
    assert together.out.count("files in two") == 1


# ---- what ranks tell each other ----------------------------------------------------------------

TALK = """\
import json, os
import torch
from torch import nn
from compressor import distributed
from compressor.errors import CompressorError, StageError
from compressor.network import Context
from compressor.settings import Training
from compressor.training.data import Data, Split
from compressor.training.evaluation import evaluate
from compressor.training.fit import fit
from compressor.training.ranks import average_statistics, check_equal

torch.set_num_threads(1)
calls, said = [], {}

def failing():
    calls.append("failing")
    raise StageError("the first rank's own")

def caught(work):
    try:
        work()
    except CompressorError as error:
        return str(error)

def data(count):
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(count) % 3
    x = torch.randn(count, 1, 4, 4, generator=generator)
    x[torch.arange(count), 0, y] += 2
    split = Split(x, y)
    return Data("toy", split, split, split, 3, (0.1,), (0.9,), "none", 0.0, "")

def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(16, 3),
    )

def changing(name, at):
    def hook(done, steps):
        if done == at and distributed.rank() == 1:
            with torch.no_grad():  # by one unit in the last place, of one value
                value = module.get_parameter(name).view(-1)[:1]
                value.copy_(torch.nextafter(value, torch.tensor(9.0)))
    return hook

with distributed.started("cpu"):
    rank = distributed.rank()
    said["world"] = [rank, distributed.world(), distributed.is_first()]
    said["gathered"] = distributed.gather({"rank": rank})
    said["total"] = int(distributed.total(torch.tensor(rank + 1)))
    said["share"] = list(range(7))[distributed.share()]
    said["by_first"] = distributed.by_first(lambda: calls.append("work") or f"of {rank}")
    said["error"] = caught(lambda: distributed.by_first(failing))
    said["calls"] = calls

    module = network()
    said["equal"] = caught(lambda: check_equal(module, "now"))
    module[1].running_mean.fill_(rank + 0.5)
    module[1].num_batches_tracked.fill_(7)
    said["unequal"] = caught(lambda: check_equal(module, "now"))
    average_statistics(module)
    said["averaged"] = [module[1].running_mean.tolist(), int(module[1].num_batches_tracked)]
    said["averaged equal"] = caught(lambda: check_equal(module, "now"))

    toy = data(49)  # batches of 16, 16, 16 and 1, which two ranks cannot share
    module, context = network(), Context(toy)
    history = fit(module, Training(epochs=2, batch_size=16), context, "train")
    said["history"] = [[epoch.loss, epoch.validation] for epoch in history]
    said["same"] = caught(lambda: check_equal(module, "after"))
    said["random"] = torch.rand(2).tolist()
    said["validation"] = evaluate(module, toy, toy.validation)

    module = network()
    hook = changing("5.weight", 6)
    training = Training(epochs=3, batch_size=16)
    said["diverged"] = caught(lambda: fit(module, training, context, "retrain", hook))
    small = Training(epochs=1, batch_size=3)
    said["small"] = caught(lambda: fit(network(), small, context, "retrain"))
with open(f"said-{rank}.json", "w") as file:
    file.write(json.dumps(said))
os._exit(0)  # as the command line ends its ranks
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("talk")
    done = torchrun(folder, TALK)
    assert done.code == 0, done.err
    return [json.loads((folder / f"said-{rank}.json").read_text()) for rank in (0, 1)]


def test_ranks_know_each_other(said: list[dict[str, Any]]) -> None:
    assert [each["world"] for each in said] == [[0, 2, True], [1, 2, False]]
    assert [each["share"] for each in said] == [[0, 2, 4, 6], [1, 3, 5]]
    for each in said:
        assert each["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert each["total"] == 1 + 2
        assert each["by_first"] == "of 0"
        assert each["error"] == "the first rank's own"
    assert [each["calls"] for each in said] == [["work", "failing"], []]


def test_batch_norms_get_the_mean_of_the_statistics(said: list[dict[str, Any]]) -> None:
    for each in said:
        assert each["equal"] is None
        assert each["unequal"].startswith("now: 1.running_mean of rank 1 is not what rank 0 has")
        assert each["averaged"] == [[(0.5 + 1.5) / 2] * 4, 7]
        assert each["averaged equal"] is None


def test_all_ranks_end_with_the_same_network_history_and_random_numbers(
    said: list[dict[str, Any]],
) -> None:
    """Each draws dropout of its own and normalises by its own images in between."""
    for each in said:
        assert each["same"] is None
        assert each["history"][-1][1] == each["validation"], "counted over all ranks"
    for key in ("history", "random"):
        assert said[0][key] == said[1][key]


def test_a_rank_that_diverges_is_found_at_the_end_of_the_epoch(said: list[dict[str, Any]]) -> None:
    """One weight is changed by one unit in the last place in the second of three epochs."""
    for each in said:
        line = each["diverged"]
        assert "\n" not in line
        assert line.startswith("retrain: after epoch 2: ")
        assert " of rank 1 is not what rank 0 has" in line


def test_a_batch_too_small_for_its_ranks_is_refused(said: list[dict[str, Any]]) -> None:
    for each in said:
        assert each["small"] == (
            "retrain: a batch of 3 images is too small for 2 processes: give each two images or "
            "more"
        )


# ---- a rank that is lost -----------------------------------------------------------------------


def lose(rank: int, bench: Path, *words: object) -> None:
    """The command ends where a rank is killed by SIGKILL in the midst of the second epoch."""
    done = torchrun(bench, RANK, *words, dies=f"{rank}:{EPOCH + 4}")
    assert done.code != 0
    assert done.seconds < 60
    assert "another process of this run has ended before its time" in done.err
    assert "--resume" in done.err


def test_a_rank_that_is_killed_ends_the_training(bench: Path) -> None:
    lose(1, bench, "train", "lenet-300-100", "--data", "digits", "--epochs", 3, "-o", "lost.pt")
    assert not (bench / "lost.pt").exists()
    assert (bench / "lost.pt.training" / ".stages" / "train.training-1").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_lost_a_rank_resumes_to_the_same_bytes(
    rank: int, bench: Path, together: Ended
) -> None:
    folder = f"lost-{rank}"
    lose(rank, bench, *WORDS, "-o", folder)
    assert {each.name for each in (bench / folder).iterdir()} == {".stages"}
    assert (bench / folder / ".stages" / "prune.training-1").exists()
    alone = subprocess.run(
        [sys.executable, "-m", "compressor", *WORDS, "-o", folder, "--resume"],
        cwd=bench,
        capture_output=True,
        text=True,
        check=False,
    )
    assert alone.returncode == 1
    assert "processes changed" in alone.stderr, "sums are rounded in another order"
    done = torchrun(bench, RANK, *WORDS, "-o", folder, "--resume")
    assert done.code == 0, done.err
    for name in ("net.dcz", "net.onnx", "recipe.toml"):
        assert (bench / folder / name).read_bytes() == (bench / "two" / name).read_bytes()
    before, after = report(bench / "two"), report(bench / folder)
    for stage in ("prune", "share"):
        assert before["stages"][stage]["history"] == after["stages"][stage]["history"]
