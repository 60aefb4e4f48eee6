"""Recipes in their three forms, what they refuse, and the grammar of settings per layer."""

import dataclasses
import hashlib
import math
import string
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

import compressor
from compressor.errors import OutputError, StageError, UsageError
from compressor.per_layer import PerLayer
from compressor.recipe import Recipe, shipped_recipes, to_table
from compressor.settings import (
    AUGMENTS,
    ENCODE_PROFILES,
    INITS,
    OPTIMIZERS,
    WIDTHS,
    Calibrate,
    Channels,
    DataSpec,
    Encode,
    Export,
    Prune,
    Share,
    Training,
    parse_bits,
    parse_sensitivity,
)

Dotted = tuple[str, ...]
FULL = Recipe(
    channels=Channels(0.3, round=8),
    prune=Prune(),
    share=Share(),
    data=DataSpec("digits", mean=(0.5,), std=(0.25,)),
    arch="lenet5",
    task="mine.py:Task",
    input_shape=(1, 28, 28),
    threads=2,
)
# Share and calibrate are two ways to do one thing: no recipe has both.
# So are a ratio of channels and a target, and a sensitivity and a sparsity.
CALIBRATED = dataclasses.replace(
    FULL,
    share=None,
    calibrate=Calibrate(max_drop=0.5),
    channels=Channels(target_macs=0.5),
    prune=Prune(sparsity=0.5),
)


TIMED = dataclasses.replace(FULL, channels=Channels(target_latency=0.5))


def whole(path: tuple[str, ...]) -> Recipe:
    """The full recipe that has the section of ``path``."""
    if path == ("channels", "target_latency"):
        return TIMED
    goals = (("channels", "target_macs"), ("prune", "sparsity"))
    by_sparsity = (("prune", "scope"), ("prune", "criterion"))
    other = path[:1] == ("calibrate",) or path in goals + by_sparsity
    return CALIBRATED if other else FULL


# ---- strategies --------------------------------------------------------------------------------

NAMES = st.text(string.ascii_letters + string.digits + ".*?_-[]\"'\\ #=é", max_size=12)
FRACTIONS = st.floats(0, 0.9)


def finite(low: float, high: float) -> st.SearchStrategy[float]:
    """Floats, and whole numbers as ints: both must mean the same."""
    return st.one_of(st.floats(low, high), st.integers(math.ceil(low), int(high)))


def rules(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        values,
        st.dictionaries(NAMES, values, max_size=4),
        st.lists(st.tuples(NAMES, values), max_size=5).map(lambda pairs: PerLayer(tuple(pairs))),
    )


TRAININGS = st.builds(
    Training,
    epochs=st.integers(0, 100),
    lr=finite(1e-6, 10),
    optimizer=st.sampled_from(OPTIMIZERS),
    momentum=FRACTIONS,
    weight_decay=finite(0, 10),
    batch_size=st.integers(1, 4096),
    warmup=FRACTIONS,
    augment=st.sampled_from(AUGMENTS),
    distill=finite(0, 1),
    temperature=finite(0.1, 100),
    slimming=finite(0, 1),
)
PRUNES = st.builds(
    Prune, sensitivity=rules(finite(0, 9)), rounds=st.integers(1, 9), retrain=TRAININGS
)
SHARES = st.builds(
    Share, bits=rules(st.integers(1, 16)), init=st.sampled_from(INITS), finetune=TRAININGS
)
CHANNELS = st.tuples(finite(0.1, 9), finite(0.1, 9))
DATA = st.one_of(
    st.builds(DataSpec, spec=NAMES, validation=FRACTIONS),
    st.builds(DataSpec, spec=NAMES, validation=FRACTIONS, mean=CHANNELS, std=CHANNELS),
)
RECIPES = st.builds(
    Recipe,
    prune=st.none() | PRUNES,
    share=st.none() | SHARES,
    encode=st.builds(
        Encode,
        width=st.sampled_from(WIDTHS),
        profile=st.sampled_from(ENCODE_PROFILES),
        graph=st.booleans(),
    ),
    export=st.builds(
        Export,
        opset=st.integers(18, 23),
        tolerance=finite(0, 1),
        samples=st.integers(1, 4096),
    ),
    data=st.none() | DATA,
    arch=st.none() | NAMES,
    task=st.none() | NAMES,
    input_shape=st.none() | st.tuples(*[st.integers(1, 99)] * 3),
    seed=st.integers(0, 2**32 - 1),
    threads=st.none() | st.integers(1, 1024),
    device=NAMES,
)

# ---- one recipe, three forms -------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(RECIPES)
def test_toml_brings_back_the_very_recipe(recipe: Recipe) -> None:
    text = recipe.to_toml()
    again = Recipe.from_toml(text)
    assert again == recipe
    assert again.to_toml() == text
    assert again.digest() == recipe.digest()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["*", "conv", "fc", "c*", "a"]), st.floats(0, 9))))
def test_repeated_patterns_mean_the_same_after_toml(pairs: list[tuple[str, float]]) -> None:
    """The last of all rules that fit wins, whatever table the rules pass through."""
    layers = {"a": "fc", "b": "fc", "c1": "conv", "c2": "conv"}
    fits = {
        "*": layers,
        "conv": ["c1", "c2"],
        "fc": ["a", "b"],
        "c*": ["c1", "c2"],
        "a": ["a"],
    }
    expected = {n: [v for p, v in pairs if n in fits[p]][-1:] for n in layers}
    recipe = Recipe(prune=Prune(sensitivity=PerLayer(tuple(pairs))))
    again = Recipe.from_toml(recipe.to_toml())
    for source in (recipe, again):
        assert source.prune is not None
        found = source.prune.rules.resolve(layers)
        assert found == {name: values[0] for name, values in expected.items() if values}


def test_every_default_is_written_out() -> None:
    """Nothing is implied: the TOML of a recipe names each setting of each section."""
    table = tomllib.loads(FULL.to_toml())

    def check(kind: Any, section: dict[str, Any]) -> None:
        assert set(section) == {item.name for item in dataclasses.fields(kind)}

    assert set(table) == {item.name for item in dataclasses.fields(FULL)} - {"calibrate"}
    check(CALIBRATED.calibrate, tomllib.loads(CALIBRATED.to_toml())["calibrate"])
    for name in ("share", "encode", "export", "data"):
        check(getattr(FULL, name), table[name])
    check(Prune, table["prune"] | {"sparsity": "the other goal"})
    check(Training, table["prune"]["retrain"])
    check(Training, table["share"]["finetune"])
    assert table["prune"]["sensitivity"] == {"*": 0.25}
    assert table["share"]["bits"] == {"*": 5}


def test_the_digest_is_the_hash_of_the_toml() -> None:
    assert FULL.digest() == hashlib.sha256(FULL.to_toml().encode("utf-8")).hexdigest()


def test_the_digest_is_the_same_in_another_process() -> None:
    code = "import compressor; r = compressor.Recipe(share=compressor.Share()); print(r.digest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Recipe(share=Share()).digest()


CHANGED: dict[Dotted, object] = {
    ("channels", "ratio"): 0.26,
    ("channels", "scope"): "global",
    ("channels", "target_macs"): 0.26,
    ("channels", "target_latency"): 0.26,
    ("channels", "criterion"): "l1",
    ("channels", "round"): 16,
    ("channels", "keep"): 5,
    ("channels", "freeze_residual"): True,
    ("channels", "rounds"): 2,
    ("channels", "recalibrate"): 77,
    ("channels", "reconstruct"): 77,
    ("prune", "sensitivity"): 0.26,
    ("prune", "sparsity"): 0.26,
    ("prune", "scope"): "erk",
    ("prune", "schedule"): "splicing",
    ("prune", "ramp"): 0.25,
    ("prune", "every"): 7,
    ("prune", "hysteresis"): 0.25,
    ("prune", "freeze"): 0.125,
    ("prune", "rate"): 0.25,
    ("prune", "rounds"): 2,
    ("prune", "criterion"): "obs",
    ("share", "bits"): 4,
    ("share", "init"): "density",
    ("share", "rate"): 0.01,
    ("share", "centroids"): 5,
    ("share", "threshold"): 0.06,
    ("calibrate", "noise"): 0.5,
    ("calibrate", "max_drop"): 0.25,
    ("calibrate", "images"): 77,
    ("encode", "width"): "fp32",
    ("encode", "biases"): 6,
    ("encode", "order"): True,
    ("encode", "profile"): "flat",
    ("encode", "graph"): False,
    ("export", "opset"): 19,
    ("export", "tolerance"): 2e-4,
    ("export", "samples"): 65,
    ("export", "emit"): ("ort", "int8"),
    ("export", "calibration"): 257,
    ("data", "spec"): "mnist",
    ("data", "validation"): 0.2,
    ("data", "mean"): (0.4,),
    ("data", "std"): (0.3,),
    ("arch",): "lenet-300-100",
    ("task",): "other.py:Task",
    ("input_shape",): (1, 32, 32),
    ("seed",): 1,
    ("threads",): 3,
    ("device",): "cuda",
} | {
    (stage, section, key): value
    for stage, section in (
        ("channels", "retrain"),
        ("prune", "retrain"),
        ("share", "train"),
        ("share", "finetune"),
    )
    for key, value in {
        "epochs": 3,
        "lr": 0.5,
        "optimizer": "sgd" if stage == "share" else "adam",
        "momentum": 0.8,
        "weight_decay": 0.01,
        "batch_size": 64,
        "warmup": 0.1,
        "rewind": 100,
        "augment": "none",
        "distill": 0.5,
        "temperature": 2.0,
        "slimming": 1e-4,
        "precision": "bf16",
        "compile": True,
    }.items()
}


def leaves(kind: Any, path: Dotted = ()) -> Iterator[Dotted]:
    for item in dataclasses.fields(kind):
        value = getattr(kind, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, PerLayer):
            yield from leaves(value, (*path, item.name))
        else:
            yield (*path, item.name)


def test_the_list_of_changes_is_whole() -> None:
    assert set(CHANGED) | {("share",), ("calibrate",)} == {*leaves(FULL), *leaves(CALIBRATED)}


@pytest.mark.parametrize("path", CHANGED, ids=".".join)
def test_the_digest_feels_every_setting(path: Dotted) -> None:
    def changed(settings: Any, path: Dotted, value: object) -> Any:
        head, *rest = path
        new = changed(getattr(settings, head), tuple(rest), value) if rest else value
        return dataclasses.replace(settings, **{head: new})

    assert changed(whole(path), path, CHANGED[path]).digest() != whole(path).digest()


def test_leaving_a_stage_out_changes_the_digest() -> None:
    recipes = (Recipe(), Recipe(prune=Prune()), Recipe(share=Share()), FULL, CALIBRATED)
    assert len({recipe.digest() for recipe in recipes}) == 5


def test_sharing_and_calibrating_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="share and calibrate"):
        Recipe(share=Share(), calibrate=Calibrate())


def test_equal_numbers_are_equal_recipes() -> None:
    plain = Recipe(prune=Prune(sensitivity=1, retrain=Training(lr=1, weight_decay=0)))
    other = Recipe(prune=Prune(sensitivity="1", retrain=Training(lr=1.0, weight_decay=0.0)))
    assert plain == other
    assert plain.digest() == other.digest()


# ---- dotted settings ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHANGED, ids=".".join)
def test_dotted_settings_reach_every_setting(path: Dotted) -> None:
    """As text, which is what a command line has."""
    value = CHANGED[path]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if isinstance(value, bool):
        text = text.lower()
    changed = whole(path).with_settings({".".join(path): text})
    found: Any = changed
    for name in path:
        found = getattr(found, name)
    if isinstance(found, PerLayer):
        assert found.rules == (("*", value),)
    else:
        assert found == value
        assert type(found) is type(value)
    assert changed != FULL


def test_dotted_settings_leave_the_rest_and_the_original_alone() -> None:
    before = FULL.to_toml()
    changed = FULL.with_settings({"prune.retrain.lr": 0.5, "seed": 7})
    assert FULL.to_toml() == before
    back = changed.with_settings({"prune.retrain.lr": Training().lr, "seed": 0})
    assert back == FULL


def test_a_dotted_setting_brings_its_stage_in() -> None:
    recipe = Recipe().with_settings({"share.bits": "conv=8bit,fc=5bit"})
    assert recipe == Recipe(share=Share(bits={"conv": 8, "fc": 5}))


def test_dotted_settings_that_lead_nowhere() -> None:
    with pytest.raises(UsageError, match=r"seed\.low.*seed is a value"):
        FULL.with_settings({"seed.low": 1})
    with pytest.raises(UsageError, match=r"unknown setting 'rate'.*lr.*momentum"):
        FULL.with_settings({"prune.retrain.rate": 1})
    with pytest.raises(UsageError, match="section"):
        FULL.with_settings({"prune": "0.25"})


# ---- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bits", [0, 17, -1, 2.5, math.nan, "0bit", "17bit", "abc", "", "5bit5", None, True]
)
def test_widths_that_cannot_be(bits: Any) -> None:
    with pytest.raises(UsageError, match=r"1bit to 16bit"):
        parse_bits(bits)
    with pytest.raises(UsageError):
        Share(bits=bits)


@pytest.mark.parametrize("text", [5, "5", "5bit", "5bits", " 5bit ", 5.0])
def test_ways_to_write_a_width(text: Any) -> None:
    bits = Share(bits=text).rules.rules
    assert bits == (("*", 5),)
    assert type(bits[0][1]) is int


@pytest.mark.parametrize(
    "sensitivity", [-1, -0.001, math.nan, math.inf, "nan", "-1", "abc", "", False, [1]]
)
def test_sensitivities_that_cannot_be(sensitivity: Any) -> None:
    with pytest.raises(UsageError, match="prune sensitivity"):
        parse_sensitivity(sensitivity)
    with pytest.raises(UsageError):
        Prune(sensitivity=sensitivity)


@pytest.mark.parametrize("limit", [0, 0.0, 3, 1e6])
def test_sensitivities_at_the_ends_are_taken(limit: float) -> None:
    assert parse_sensitivity(limit) == limit


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Training(epochs=-1), "epochs"),
        (lambda: Training(epochs=1.5), "epochs"),  # type: ignore[arg-type]
        (lambda: Training(epochs=True), "epochs"),
        (lambda: Training(lr=0), "lr"),
        (lambda: Training(lr=math.nan), "lr"),
        (lambda: Training(lr="fast"), "lr"),  # type: ignore[arg-type]
        (lambda: Training(optimizer="lion"), "optimizer.*sgd, adam"),
        (lambda: Training(momentum=1.0), "momentum"),
        (lambda: Training(weight_decay=-0.1), "weight_decay"),
        (lambda: Training(batch_size=0), "batch_size"),
        (lambda: Training(warmup=1.0), "warmup"),
        (lambda: Training(augment="mixup"), "augment.*flip-crop"),
        (lambda: Prune(rounds=0), "prune.rounds"),
        (lambda: Share(init="kmeans++"), "share.init.*linear, density, random"),  # type: ignore[arg-type]
        (lambda: Encode(width="fp8"), "encode.width.*fp16, fp32"),  # type: ignore[arg-type]
        (lambda: Encode(profile="zip"), "encode.profile.*auto, best, fast"),  # type: ignore[arg-type]
        (lambda: Export(opset=17), "export.opset.*between 18 and 23"),
        (lambda: Export(tolerance=-1), "export.tolerance"),
        (lambda: Export(samples=0), "export.samples"),
        (lambda: DataSpec("mnist", validation=1.0), "data.validation"),
        (lambda: DataSpec("mnist", mean=(0.1,)), "mean and std go together"),
        (lambda: DataSpec("mnist", std=(0.1,)), "mean and std go together"),
        (lambda: DataSpec("mnist", mean=(math.nan,), std=(1.0,)), "data.mean"),
        (lambda: Recipe(seed=-1), "seed"),
        (lambda: Recipe(seed=2**32), "seed"),
        (lambda: Recipe(threads=0), "threads"),
        (lambda: Recipe(input_shape=(1, 0, 28)), "input_shape"),
    ],
)
def test_values_that_cannot_be(make: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        make()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = 'x'", "seed is 'x'"),
        ("seed = 1.5", "whole number"),
        ("seed = true", "seed is True"),
        ("device = 3", "device is 3: it must be str"),
        ("input_shape = 32", "input_shape is 32: it must be a list"),
        ("input_shape = ['a']", "input_shape is 'a'"),
        ("prune = 0.25", "prune must be a section"),
        ("prune.retrain = 3", "retrain must be a section"),
        ("prune.sensitivity = [0.1, 0.2]", "prune sensitivity"),
        ("prune.sensitivity = {conv = -1}", "prune sensitivity is -1"),
        ("prune.retrain.lr = nan", "lr"),
        ("share.bits = 'wide'", "1bit to 16bit"),
        ("encode.graph = 1", "graph is 1: it must be bool"),
        ("encode.width = ['fp16']", "encode.width"),
        ("data.validation = 0.1", "spec is missing"),
        ("data.spec = 5", "spec is 5: it must be str"),
        ("sed = 1", "unknown setting 'sed'.*seed"),
        ("share.bit = 5", "unknown setting 'bit'.*bits, init, finetune, rate"),
        ("seed = ", "is not valid TOML"),
    ],
)
def test_recipe_files_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Recipe.from_toml(text)


def test_an_error_names_the_file() -> None:
    for text in ("seed = ", "sed = 1", "device = 3"):
        with pytest.raises(UsageError, match=r"^mine\.toml"):
            Recipe.from_toml(text, "mine.toml")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ((), Recipe),
        (("prune",), Prune),
        (("prune", "retrain"), Training),
        (("share",), Share),
        (("calibrate",), Calibrate),
        (("encode",), Encode),
        (("export",), Export),
        (("data",), DataSpec),
    ],
)
def test_an_unknown_setting_names_all_that_are_allowed(path: Dotted, kind: Any) -> None:
    table = to_table(whole(path))
    section = table
    for name in path:
        section = section[name]
    section["nonsense"] = 1
    with pytest.raises(UsageError, match="unknown setting 'nonsense'") as caught:
        Recipe.from_toml(tomli_w.dumps(table))
    for item in dataclasses.fields(kind):
        assert item.name in str(caught.value)


# ---- files -------------------------------------------------------------------------------------


def test_recipes_are_read_from_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(FULL.to_toml(), encoding="utf-8")
    assert Recipe.read(path) == FULL
    assert Recipe.read(str(path)) == FULL


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00seed"])
def test_files_that_are_no_recipes(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OutputError, match=r"mine\.toml cannot be read"):
        Recipe.read(path)


def test_shipped_recipes_are_those_in_the_folder() -> None:
    folder = Path(compressor.__file__).parent / "recipes"
    assert shipped_recipes() == sorted(path.stem for path in folder.glob("*.toml"))


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_parse_and_are_complete(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By bare name, from anywhere; with a stage to run and the data to run it on."""
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.read(name)
    assert recipe.prune or recipe.share or recipe.calibrate
    assert recipe.data is not None
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_importing_recipes_imports_no_torch() -> None:
    code = (
        "import sys, compressor, compressor.recipe; compressor.Recipe().to_toml(); "
        "print(sorted(sys.modules.keys() & {'torch', 'numpy', 'sklearn', 'scipy', 'onnx'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- settings per layer ------------------------------------------------------------------------

KINDS = {
    "conv1": "conv",
    "layer1.0.conv1": "conv",
    "layer1.0.conv2": "conv",
    "layer10.conv1": "conv",
    "fc": "fc",
    "head.fc2": "fc",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", dict.fromkeys(KINDS, 0.5)),
        ("conv=0.5", {n: 0.5 for n, kind in KINDS.items() if kind == "conv"}),
        ("fc=1.5", {"fc": 1.5, "head.fc2": 1.5}),
        ("conv=0.5,fc=1.5", {n: 0.5 if kind == "conv" else 1.5 for n, kind in KINDS.items()}),
        (" conv = 0.5 , fc = 1.5 ", {n: 0.5 if k == "conv" else 1.5 for n, k in KINDS.items()}),
        ("layer1.*=1", {"layer1.0.conv1": 1, "layer1.0.conv2": 1}),
        ("*conv1=1", {"conv1": 1, "layer1.0.conv1": 1, "layer10.conv1": 1}),
        ("layer1.?.conv[12]=1", {"layer1.0.conv1": 1, "layer1.0.conv2": 1}),
        ("conv1=1", {"conv1": 1}),
        ("2,conv1=1", {**dict.fromkeys(KINDS, 2), "conv1": 1}),
        ("conv1=1,2", dict.fromkeys(KINDS, 2)),
        ("conv=1,conv1=2,conv=3", {n: 3 for n, kind in KINDS.items() if kind == "conv"}),
        ("fc=1,head.*=2", {"fc": 1, "head.fc2": 2}),
        ("head.*=2,fc=1", {"fc": 1, "head.fc2": 1}),
    ],
)
def test_rules(text: str, expected: dict[str, float]) -> None:
    found = PerLayer.parse(text, parse_sensitivity).resolve(KINDS)
    assert found == expected
    assert list(found) == [name for name in KINDS if name in expected]


def test_a_kind_means_all_of_its_kind_even_where_a_layer_has_that_name() -> None:
    rules = PerLayer.parse("fc=1", parse_sensitivity)
    assert rules.resolve({"fc": "fc", "other": "fc"}) == {"fc": 1, "other": 1}


def test_names_are_told_apart_by_case() -> None:
    with pytest.raises(StageError):
        PerLayer.parse("CONV1=1", parse_sensitivity).resolve(KINDS)


def test_a_kind_that_the_network_lacks_is_no_error() -> None:
    rules = PerLayer.parse("conv=0.5,fc=1.5", parse_sensitivity)
    assert rules.resolve({"only": "fc"}) == {"only": 1.5}


def test_a_rule_for_no_layer_names_close_ones() -> None:
    rules = PerLayer.parse("0.5,layer1.0.cnov1=1", parse_sensitivity)
    with pytest.raises(StageError, match=r"'layer1\.0\.cnov1'.*layer1\.0\.conv1"):
        rules.resolve(KINDS)


def test_a_rule_unlike_any_layer_names_some() -> None:
    with pytest.raises(StageError, match=r"'zzz\*'.*6 layer names.*conv1"):
        PerLayer.parse("zzz*=1", parse_sensitivity).resolve(KINDS)


@pytest.mark.parametrize("text", ["", ",", "0.5,", "conv=", "=0.5", "conv=0.5,,fc=1", "  "])
def test_texts_outside_the_grammar(text: str) -> None:
    with pytest.raises(UsageError, match="PATTERN=VALUE"):
        PerLayer.parse(text, parse_sensitivity)


def test_all_forms_of_rules_mean_the_same() -> None:
    wanted = PerLayer((("*", 0.5), ("fc", 1.5)))
    for source in ("0.5,fc=1.5", {"*": 0.5, "fc": 1.5}, {"*": "0.5", "fc": "1.5"}, wanted):
        assert PerLayer.parse(source, parse_sensitivity) == wanted
    assert PerLayer.parse(wanted.table(), parse_sensitivity) == wanted


def test_a_part_of_a_training_leaves_the_rest_as_its_stage_has_it() -> None:
    """Fine-tuning has an optimizer and a rate of its own, which --finetune-epochs must not undo."""
    changed = Recipe().with_settings({"share.bits": 5, "share.finetune.epochs": 1}).share
    assert changed is not None
    assert changed.finetune == dataclasses.replace(Share().finetune, epochs=1)
    read = Recipe.from_toml("[share.finetune]\nepochs = 1\n").share
    assert read is not None
    assert read.finetune == changed.finetune
