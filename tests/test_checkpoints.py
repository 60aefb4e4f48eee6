"""A training that was killed goes on to the same bits; damaged checkpoints; precision."""

import copy
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.errors import OutputError, UsageError
from compressor.layers import compressible_layers, mask_of
from compressor.network import Context
from compressor.pruning import prune
from compressor.recipe import Recipe
from compressor.settings import Prune, Share, Training
from compressor.training.checkpoints import Checkpoints
from compressor.training.fit import fit
from compressor.training.precision import autocast
from compressor.workspace import Workspace
from tests.conftest import Compress
from tests.test_fit import equal, richer, state_of, toy_data
from tests.test_pruning import network
from tests.test_pruning import toy_data as pruning_data

State = dict[str, Tensor]
STEPS = 4  # an epoch of 50 images in batches of 16


class Killed(Exception):
    pass


def killing(at: int) -> Any:
    """A hook that ends the training after step ``at``."""

    def hook(done: int, steps: int) -> None:
        if done == at:
            raise Killed

    return hook


def store(folder: Path, *, resume: bool = False) -> Workspace:
    workspace = Workspace(folder / "run", {"model": "toy"})
    workspace.open(resume=resume, force=False)
    return workspace


def context(folder: Path, *, resume: bool = False, stage: str = "prune") -> Context:
    found = Context(toy_data(), seed=4)
    found.checkpoints = Checkpoints(store(folder, resume=resume), stage)
    return found


@contextmanager
def dying_at(step: int) -> Iterator[None]:
    """SGD never takes that step, counted from 1 over all trainings."""
    whole, taken = torch.optim.SGD.step, [0]

    def stop(self: torch.optim.SGD, *args: Any) -> Any:
        taken[0] += 1
        if taken[0] == step:
            raise Killed
        return whole(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", stop)
        yield


# ---- one training ------------------------------------------------------------------------------


@pytest.mark.parametrize("kill_at", [STEPS + 1, 2 * STEPS + 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_killed_training_goes_on_to_the_same_weights_history_and_random_numbers(
    optimizer: str, kill_at: int, tmp_path: Path
) -> None:
    """With dropout, batch norm and augmentation: all that remembers or draws anything."""
    training = Training(
        epochs=3, lr=0.01, optimizer=optimizer, batch_size=16, augment="affine", weight_decay=0.1
    )
    whole = richer()
    history = fit(whole, training, Context(toy_data(), seed=4), "train")
    after = torch.rand(4)

    with pytest.raises(Killed):
        fit(richer(), training, context(tmp_path), "train", killing(kill_at))
    resumed = richer(seed=99)  # what it had comes from the checkpoint alone
    torch.manual_seed(1234)
    seen: list[int] = []
    found = fit(
        resumed,
        training,
        context(tmp_path, resume=True),
        "train",
        lambda done, steps: seen.append(done),
    )
    assert torch.equal(torch.rand(4), after)
    assert equal(state_of(whole), state_of(resumed))
    assert found == history
    assert seen == list(range(kill_at - (kill_at - 1) % STEPS, 3 * STEPS + 1)), "whole epochs kept"


def test_a_training_that_had_ended_is_not_repeated(tmp_path: Path) -> None:
    """The first of two trainings of a stage had ended, the second was killed."""
    training = Training(epochs=2, lr=0.05, batch_size=16)

    def both(where: Context, second: Any = None) -> tuple[nn.Module, list[Any], Tensor]:
        module, steps = richer(), [0]

        def count(done: int, of: int) -> None:
            steps[0] += 1

        first = fit(module, training, where, "one", count)
        history = first + fit(module, training, where, "two", second or count)
        return module, [steps[0], *history], torch.rand(4)

    whole, (steps, *history), after = both(Context(toy_data(), seed=4))
    assert steps == 4 * STEPS
    with pytest.raises(Killed):
        both(context(tmp_path), killing(STEPS + 2))
    resumed, (steps, *found), later = both(context(tmp_path, resume=True))
    assert steps == STEPS, "the last epoch of the second"
    assert equal(state_of(whole), state_of(resumed))
    assert found == history
    assert torch.equal(after, later)


def test_a_hook_gets_its_state_back(tmp_path: Path) -> None:
    class Sum:
        def __init__(self, kill_at: int = 0) -> None:
            self.seen, self.kill_at = list[int](), kill_at

        def __call__(self, done: int, steps: int) -> None:
            self.seen.append(done)
            if done == self.kill_at:
                raise Killed

        def state_dict(self) -> dict[str, Any]:
            return {"seen": list(self.seen)}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.seen = state["seen"]

    training = Training(epochs=3, batch_size=16)
    with pytest.raises(Killed):
        fit(richer(), training, context(tmp_path), "", Sum(kill_at=2 * STEPS + 1))
    hook = Sum()
    fit(richer(), training, context(tmp_path, resume=True), "", hook)
    assert hook.seen == list(range(1, 3 * STEPS + 1))


# ---- stages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["rounds", "gradual", "splicing", "movement"])
def test_pruning_while_training_goes_on_with_its_masks_and_its_history(
    schedule: Any, tmp_path: Path
) -> None:
    """4 epochs of 4 steps, the ramp under way when it is killed in the third."""
    retrain = Training(epochs=4, lr=0.05, batch_size=8)
    settings = Prune(
        sparsity=0.8,
        schedule=schedule,
        **({} if schedule == "rounds" else {"every": 3}),  # type: ignore[arg-type]
        retrain=retrain,
    )
    torch.manual_seed(0)
    dense = network()

    def pruned(workspace: Workspace | None) -> tuple[State, list[Any]]:
        net = copy.deepcopy(dense)
        where = Context(pruning_data())
        where.checkpoints = Checkpoints(workspace, "prune") if workspace else None
        report = prune(net, settings, where)
        masks = {n: mask_of(each) for n, each in compressible_layers(net.module).items()}
        assert all(mask is not None for mask in masks.values())
        return state_of(net.module), report.history

    whole, history = pruned(None)
    with dying_at(11), pytest.raises(Killed):
        pruned(store(tmp_path))
    resumed, found = pruned(store(tmp_path, resume=True))
    assert whole.keys() == resumed.keys()
    assert equal(whole, resumed)
    assert found == history
    assert None not in [row["sparsity"] for row in found]


def test_a_run_killed_twice_in_an_epoch_resumes_to_the_same_files(
    shelf: Path, tmp_path: Path, compress: Compress
) -> None:
    """144 images in batches of 60: epochs of 3 steps, 4 for the survivors and 3 for centroids."""
    recipe = Recipe(
        prune=Prune(0.5, retrain=Training(epochs=4, lr=0.01, batch_size=60)),
        share=Share(bits=3, finetune=Training(epochs=3, lr=1e-3, batch_size=60)),
        threads=1,
    )
    data = str(shelf / "data.npz")
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    words = ("run", shelf / "net.pt", "--recipe", tmp_path / "recipe.toml", "--data", data, "-q")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert compress(*words, "-o", whole).code == 0
    # In the retraining's second epoch; then 9 steps are left of it, and 2 epochs of fine-tuning go.
    for kill_at, stage in ((5, "prune"), (9 + 3 + 2, "share")):
        with dying_at(kill_at), pytest.raises(Killed):
            compressor.compress(
                shelf / "net.pt", recipe, data=data, output=killed, resume=stage == "share"
            )
        kept = [each.name for each in (killed / ".stages").glob("*.training-*")]
        assert kept == [f"{stage}.training-1"]
    assert compress(*words, "-o", killed, "--resume").code == 0
    assert {each.name for each in killed.iterdir()} == {each.name for each in whole.iterdir()}
    for name in ("net.dcz", "net.onnx", "recipe.toml"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


# ---- compress train ----------------------------------------------------------------------------

TRAIN = ("train", "lenet-300-100", "--epochs", 3, "--batch-size", 60, "--threads", 1, "-q")

DYING = """\
import os, signal, sys
import torch
from compressor.cli import main

step, taken = torch.optim.SGD.step, [0]

def stop(self, *args):
    taken[0] += 1
    if taken[0] == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args)

torch.optim.SGD.step = stop
main(sys.argv[1:])
"""


def test_a_train_command_killed_in_its_second_epoch_resumes_to_the_same_weights(
    here: Path, shelf: Path, compress: Compress
) -> None:
    words = [*map(str, TRAIN), "--data", str(shelf / "data.npz")]
    done = subprocess.run(
        [sys.executable, "-c", DYING, *words, "-o", "killed.pt"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not Path("killed.pt").exists()
    assert Path("killed.pt.training/.stages/train.training-1").exists()

    refused = compress(*words, "-o", "killed.pt")
    assert refused.code == 1
    assert "--resume" in refused.err
    other = compress(*words, "-o", "killed.pt", "--lr", 0.01, "--resume")
    assert other.code == 1
    assert "settings changed" in other.err

    assert compress(*words, "-o", "killed.pt", "--resume").code == 0
    assert compress(*words, "-o", "whole.pt").code == 0
    killed, whole = (torch.load(f"{name}.pt", weights_only=True) for name in ("killed", "whole"))
    assert killed.keys() == whole.keys()
    assert equal(killed, whole)
    assert sorted(each.name for each in here.iterdir()) == ["killed.pt", "whole.pt"]


# ---- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["empty", "cut", "a bit", "another file"])
def test_a_damaged_checkpoint_is_one_clear_line(damage: str, tmp_path: Path) -> None:
    training = Training(epochs=2, batch_size=16)
    with pytest.raises(Killed):
        fit(richer(), training, context(tmp_path), "", killing(STEPS + 1))
    path = tmp_path / "run" / ".stages" / "prune.training-1"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(
        {
            "empty": b"",
            "cut": path.read_bytes()[:-100],
            "a bit": bytes(content),
            "another file": b"PK\3\4 something else",
        }[damage]
    )
    with pytest.raises(
        OutputError, match=r"\Aprune\.training-1 is damaged: start over with --force\Z"
    ):
        fit(richer(), training, context(tmp_path, resume=True), "")


# ---- precision ---------------------------------------------------------------------------------


def test_bf16_trains_and_ends_near_fp32() -> None:
    """The weights stay fp32; a bf16 operand has 8 bits, so products differ by up to 2^-8."""
    data = toy_data(train=90)
    losses, modules = {}, {}
    for precision in ("fp32", "bf16"):
        module = richer()
        history = fit(
            module,
            Training(epochs=8, lr=0.05, batch_size=16, precision=precision),
            Context(data),
            "train",
        )
        losses[precision] = [epoch.loss for epoch in history]
        modules[precision] = state_of(module)
    assert all(math.isfinite(loss) for loss in losses["bf16"])
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)
    assert losses["bf16"][-1] < losses["bf16"][0] / 2, "learns"
    assert all(v.dtype != torch.bfloat16 for v in modules["bf16"].values())
    assert not equal(modules["bf16"], modules["fp32"]), "precision has an effect"


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_precision_is_that_of_matrix_products(precision: str, dtype: torch.dtype) -> None:
    with autocast(precision, torch.device("cpu")):
        assert nn.Linear(3, 2)(torch.zeros(1, 3)).dtype == dtype


def test_a_precision_that_does_not_exist_is_refused(
    here: Path, shelf: Path, compress: Compress
) -> None:
    with pytest.raises(UsageError, match=r"precision.*fp8.*fp32, bf16"):
        Training(precision="fp8")
    done = compress(*TRAIN, "--data", shelf / "data.npz", "--precision", "fp8")
    assert done.code == 2
    assert "--precision" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not list(here.iterdir())
