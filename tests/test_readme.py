"""The documentation runs: commands and code of the README, links, shipped recipes."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.cli import cli, main
from compressor.recipe import Recipe, shipped_recipes
from compressor.training import data_sources

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[list[str]]:
    """Every `compress ...` in the README, in console blocks and in running text."""
    found = re.findall(r"^\$ (compress .*)$", README, re.M) + re.findall(
        r"`(compress [^`]*)`", README
    )
    return [shlex.split(line)[1:] for line in found]


def test_every_command_and_option_in_the_readme_exists() -> None:
    assert len(commands()) >= 8
    for words in commands():
        name = words[0] if words and words[0] in cli.commands else "run"
        options = {flag for item in cli.commands[name].params for flag in item.opts}
        flags = {word for word in words if word.startswith("-")}
        assert flags <= options, words


def test_every_option_in_the_text_of_the_readme_exists() -> None:
    options = {
        flag for name in cli.commands for item in cli.commands[name].params for flag in item.opts
    }
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", README))
    elsewhere = {"--rm", "--nproc-per-node"}  # docker's, torchrun's

    assert mentioned - elsewhere - {"--help"} <= options


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_shipped_recipe_is_whole() -> None:
    names = shipped_recipes()

    assert {"lenet-300-100-mnist", "lenet5-mnist", "resnet20-cifar10"} <= set(names)
    for name in names:
        recipe = Recipe.read(name)
        assert recipe.arch is not None
        assert recipe.data is not None
        assert recipe.prune is not None
        assert recipe.share is not None


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    digits = data_sources.digits

    def few(*shape: Any) -> data_sources.Source:
        found = digits(*shape)
        return replace(found, train=found.train.take(torch.arange(300)))

    monkeypatch.setattr(data_sources, "digits", few)
    train = "train lenet5 --data digits --epochs 1 --threads 1 -q"
    with pytest.raises(SystemExit) as end:
        main(train.split())
    assert end.value.code == 0
    capsys.readouterr()
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    scope: dict[str, object] = {}
    exec(code, scope)
    ratio = float(capsys.readouterr().out)

    assert ratio > 4
    assert (tmp_path / "out" / "lenet5.dcz").stat().st_size == pytest.approx(4 * 431_080 / ratio)
