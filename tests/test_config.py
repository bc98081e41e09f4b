"""Recipes: what is read, what is refused, and what the refusal says."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from notetune import config
from notetune.config import Config
from notetune.errors import ConfigError


class LoRA(Config):
    kind: Literal["lora"] = "lora"
    rank: Annotated[int, Field(gt=0)] = 8


class Prompt(Config):
    kind: Literal["prompt"] = "prompt"
    virtual_tokens: int = 20


Adapter = Annotated[LoRA | Prompt, Field(discriminator="kind")]


class Optim(Config):
    peak_lr: float = 3e-4
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.06


class Step(Config):
    adapter: Adapter = LoRA(rank=32)
    optim: Optim = Optim(warmup_fraction=0.5)


class Recipe(Config):
    seed: int = 0
    is_fast: bool = False
    name: str = "first"
    folder: Path = Path("runs")
    optim: Optim = Optim()
    adapter: Adapter = LoRA()
    stack: tuple[Adapter, ...] = ()
    step: Step = Step()
    by_task: dict[str, Optim] = Field(default_factory=dict)
    domain: LoRA | None = None
    range: tuple[int, int] = (0, 1)

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.seed == 13:
            raise ValueError("seed 13 is taken; use another")
        return self


class Needs(Config):
    backbone: Path
    optim: Optim


@pytest.fixture
def read(tmp_path):
    def _read(text, *overrides, model=Recipe):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return config.load(model, path, overrides)

    return _read


@pytest.fixture
def refusal(read, tmp_path):
    """The message of a refused recipe, with the path taken off its start."""

    def _refusal(text, *overrides, model=Recipe):
        with pytest.raises(ConfigError) as caught:
            read(text, *overrides, model=model)
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(str(tmp_path / "recipe.yaml"), "FILE")

    return _refusal


def test_a_complete_recipe_keeps_every_value(read):
    text = """
    seed: 7
    is_fast: true
    name: second
    folder: out/here
    optim: {peak_lr: 1e-4, warmup_fraction: 0}
    adapter: {kind: prompt, virtual_tokens: 5}
    stack: [{kind: lora}, {kind: prompt}]
    by_task: {death: {peak_lr: 1}}
    domain: {rank: 2}
    """
    assert read(text) == Recipe(
        seed=7,
        is_fast=True,
        name="second",
        folder=Path("out/here"),
        optim=Optim(peak_lr=1e-4, warmup_fraction=0.0),
        adapter=Prompt(virtual_tokens=5),
        stack=(LoRA(), Prompt()),
        by_task={"death": Optim(peak_lr=1.0)},
        domain=LoRA(rank=2),
    )


def test_a_recipe_survives_the_way_to_json_and_back():
    recipe = Recipe(seed=3, adapter=Prompt(), stack=(LoRA(rank=1),), folder=Path("a/b"))
    assert config.parse(Recipe, recipe.model_dump(mode="json"), "saved") == recipe
    assert config.parse(Recipe, recipe.model_dump(), "saved") == recipe
    assert config.parse(Recipe, {"adapter": Prompt()}, "models inside") == Recipe(adapter=Prompt())


def test_a_recipe_cannot_be_changed():
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        recipe.optim.peak_lr = 1.0


UNKNOWN_KEYS = {
    "sead: 1": "unknown key sead; did you mean seed?",
    "optim: {warmup_fractoin: 0.1}": (
        "unknown key optim.warmup_fractoin; did you mean optim.warmup_fraction?"
    ),
    "peak_lr: 1": "unknown key peak_lr; did you mean optim.peak_lr?",
    "adapter: {kind: lora, rnk: 4}": "unknown key adapter.rnk; did you mean adapter.rank?",
    "adapter: {kind: lora, virtual_tokens: 4}": (
        "unknown key adapter.virtual_tokens; the keys there are kind, rank"
    ),
    "stack: [{kind: lora}, {kind: prompt, virtual_token: 4}]": (
        "unknown key stack.1.virtual_token; did you mean stack.1.virtual_tokens?"
    ),
    "by_task: {death: {peek_lr: 1}}": (
        "unknown key by_task.death.peek_lr; did you mean by_task.death.peak_lr?"
    ),
    "domain: {ranc: 1}": "unknown key domain.ranc; did you mean domain.rank?",
    "optim: {qqq: 1}": "unknown key optim.qqq; the keys there are peak_lr, warmup_fraction",
}


@pytest.mark.parametrize(("text", "message"), UNKNOWN_KEYS.items())
def test_an_unknown_key_is_named_with_the_nearest_one_allowed_there(refusal, text, message):
    assert refusal(text) == f"FILE: {message}"


WRONG_VALUES = {
    "seed: 1.5": "seed is 1.5: it should be a valid integer",
    "seed: 1.0": "seed is 1.0: it should be a valid integer",
    'seed: "7"': "seed is '7': it should be a valid integer",
    "seed: true": "seed is true: it should be a valid integer",
    "seed:": "seed is empty: it should be a valid integer",
    "seed: [1]": "seed is a list: it should be a valid integer",
    "seed: {a: 1}": "seed is a section: it should be a valid integer",
    "seed: seven of nine": "seed is a text: it should be a valid integer",
    "is_fast: 1": "is_fast is 1: it should be a valid boolean",
    "is_fast: yes": "is_fast is 'yes': it should be a valid boolean",
    "name: 3": "name is 3: it should be a valid string",
    "optim: {peak_lr: '1e-4'}": "optim.peak_lr is '1e-4': it should be a valid number",
    "optim: {peak_lr: .nan}": "optim.peak_lr is nan: it should be a finite number",
    "optim: {warmup_fraction: 1}": "optim.warmup_fraction is 1: it should be less than 1",
    "optim:": (
        "optim is empty: it should be a section with keys; to keep the defaults, leave it out"
    ),
    "adapter: 3": (
        "adapter is 3: it should be a section with keys; to keep the defaults, leave it out"
    ),
    "adapter: {kind: lorra}": "adapter.kind is 'lorra': it should be one of lora, prompt",
    "stack: [{rank: 3}]": "stack.0.kind is missing: it should be one of lora, prompt",
    "stack: [{kind: lora, rank: 0}]": "stack.0.rank is 0: it should be greater than 0",
    "stack: [{kind: x}]": "stack.0.kind is 'x': it should be one of lora, prompt",
    "range: [1]": "range.1: Field required",
    "seed: 13": "seed 13 is taken; use another",
}


@pytest.mark.parametrize(("text", "message"), WRONG_VALUES.items())
def test_a_wrong_value_is_named_with_its_key_and_never_converted(refusal, text, message):
    assert refusal(text) == f"FILE: {message}"


def test_every_problem_of_a_recipe_is_told_at_once(refusal):
    message = refusal("seed: x\noptim: {peak_lr: y}\nsead: 1\n")
    assert [part.split()[0] for part in message.removeprefix("FILE: ").split("; ")][:2] == [
        "seed",
        "optim.peak_lr",
    ]
    assert "unknown key sead" in message


def test_missing_keys_and_sections_are_named(refusal):
    assert refusal("seed: 1", model=Needs) == (
        "FILE: backbone: Field required; optim: Field required; "
        "unknown key seed; the keys there are backbone, optim"
    )


SCALARS = {
    "1e-4": 1e-4,
    "1E5": 1e5,
    "+1.5e+3": 1500.0,
    ".5": 0.5,
    "3.": 3.0,
    "-2": -2,
    "65_536": 65_536,
    "0": 0,
    "true": True,
    "False": False,
    "~": None,
    "null": None,
    "010": "010",
    "08": "08",
    "0x10": "0x10",
    "1:30": "1:30",
    "no": "no",
    "on": "on",
    "2020-01-01": "2020-01-01",
    "1e": "1e",
    "1.2.3": "1.2.3",
    "'1e-4'": "1e-4",
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_a_scalar_is_what_a_person_means_by_it(text, value):
    class Anything(Config):
        value: float | int | bool | str | None

    data = config._read_yaml(f"value: {text}", "test")
    assert data == {"value": value}
    assert type(data["value"]) is type(value)
    assert config.parse(Anything, data, "test").value == value


WHOLE = st.integers(-(10**15), 10**15)


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    WHOLE,
    st.booleans(),
)
def test_numbers_written_by_python_are_read_back_exactly(real, whole, flag):
    read = config._read_yaml(f"[{real!r}, {whole!r}, {str(flag).lower()}]", "test")
    assert read == [real, whole, flag]
    assert [type(value) for value in read] == [float, int, bool]
    assert math.copysign(1, read[0]) == math.copysign(1, real)


@given(st.dictionaries(st.text("abcxyz", min_size=1), WHOLE | st.text() | st.none()))
@example({"a": "0E0", "b": "010", "c": "no", "d": "1e-4"})
@example({"a": "\x85", "b": "\u2028", "c": "é\ufeff"})
def test_what_is_written_is_read_back(data):
    assert config._read_yaml(config.as_yaml(data), "test") == data


TOO_DEEP = (
    "recipe FILE: sections too deep, a number too long, or a value that does not fit its tag; "
    "write values plainly."
)
NOT_YAML = (
    "this, or the line before, is not valid YAML; put quotes around a value that holds any of "
    "# : ? , [ ] { }, and indent with spaces."
)
NOT_A_RECIPE = {
    "columns: {note_id: Row #, text: text}\n": "recipe FILE line 2: " + NOT_YAML,
    "": "recipe FILE holds no keys; see recipes/ for complete examples.",
    "# only a comment\n": "recipe FILE holds no keys; see recipes/ for complete examples.",
    "- seed\n": "recipe FILE holds no keys; see recipes/ for complete examples.",
    "seed: 1\nname: [a\n": "recipe FILE line 3: " + NOT_YAML,
    "seed: 1\n---\nseed: 2\n": "recipe FILE line 2: " + NOT_YAML,
    "seed: !!python/name:os.system\n": "recipe FILE line 1: " + NOT_YAML,
    "seed: 1\nname: a\nseed: 2\n": "recipe FILE line 3: key seed is given twice; keep one.",
    "optim:\n  peak_lr: 1\n  peak_lr: 1\n": (
        "recipe FILE line 3: key peak_lr is given twice; keep one."
    ),
    "stack:\n- {kind: lora, kind: lora}\n": (
        "recipe FILE line 2: key kind is given twice; keep one."
    ),
    "? [a, b]\n: 1\n": "recipe FILE line 1: " + NOT_YAML,
    "stack: &self [*self]\n": "recipe FILE line 1: " + NOT_YAML,
    "stack: " + "[" * 3000 + "]" * 3000: TOO_DEEP,
    "seed: " + "9" * 5000: TOO_DEEP,
    "seed: 1000000000000001": (
        "recipe FILE line 1: a whole number over 1,000,000,000,000,000; write a smaller one."
    ),
    "seed: !!bool soon": TOO_DEEP,
    'folder: "a\\0b"': "FILE: a key or a value holds a NUL character; remove it.",
    "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)): (
        "recipe FILE: its aliases stand for over 100,000 values."
    ),
    "name: !!binary /w==\n": (
        "FILE: a value is none of text, number, true, false, null, list or section."
    ),
}


@pytest.mark.parametrize(("text", "message"), NOT_A_RECIPE.items())
def test_what_is_not_a_recipe_is_refused_by_line(refusal, text, message):
    assert refusal(text) == message


def test_a_missing_file_a_folder_and_a_file_that_is_not_text_are_refused(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("name: Zürich".encode("latin-1"))
    for name, reason in {
        "none.yaml": "not a file",
        "": "not a file",
        "latin.yaml": "UTF-8",
    }.items():
        with pytest.raises(ConfigError, match=reason):
            config.load(Recipe, tmp_path / name)


CANARY = "Mr Quillfeather reports chest pain"


@pytest.mark.parametrize(
    "text",
    [
        f"{CANARY}: since Monday",
        f"{CANARY}: a\n{CANARY}: b",
        f"name: [{CANARY}",
        f"seed: {CANARY}",
        f"adapter: {{kind: '{CANARY}'}}",
        f"optim: {{{CANARY}: 1}}",
        f"by_task: {{{CANARY}: {{peek: 1}}}}",
        f"seed: !<{CANARY.replace(' ', '')}> 1",
        f"seed: *{CANARY.replace(' ', '')}",
        f"{CANARY}, with no colon at all",
    ],
)
def test_a_note_given_by_mistake_as_a_recipe_is_not_repeated(read, text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert "Quillfeather" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_overrides_apply_from_left_to_right(read):
    recipe = read(
        "seed: 1\nadapter: {kind: lora, rank: 4}",
        "seed=2",
        "optim.peak_lr=1e-5",
        "adapter.rank=6",
        "optim={warmup_fraction: 0.5}",
        "seed=3",
        "by_task.death.peak_lr=2",
        "name=a=b",
    )
    assert recipe == Recipe(
        seed=3,
        adapter=LoRA(rank=6),
        optim=Optim(warmup_fraction=0.5),
        by_task={"death": Optim(peak_lr=2.0)},
        name="a=b",
    )


def test_an_override_fills_an_empty_section(read):
    assert read("domain: null\nseed: 1", "domain.rank=3").domain == LoRA(rank=3)


def test_a_section_given_in_part_begins_as_the_default_of_its_place(read):
    steps = read("step: {optim: {peak_lr: 1}, adapter: {}}\nadapter: {}")
    assert steps.step == Step(optim=Optim(peak_lr=1.0, warmup_fraction=0.5))
    assert (steps.adapter, steps.step.adapter) == (LoRA(), LoRA(rank=32))
    other = read("step: {}", "step.adapter.kind=prompt", "step.optim.warmup_fraction=0.1").step
    assert other == Step(adapter=Prompt(), optim=Optim(warmup_fraction=0.1))
    assert read("seed: 1").step.model_fields_set == set()


def test_an_override_of_one_section_leaves_its_alias_alone(read):
    text = "by_task: {a: &same {peak_lr: 1}, b: *same}"
    changed = read(text, "by_task.a.peak_lr=2").by_task
    assert changed == {"a": Optim(peak_lr=2.0), "b": Optim(peak_lr=1.0)}


def test_a_merge_key_shares_values_and_may_be_overridden_beside_it(read):
    text = "domain: &base {kind: lora, rank: 2}\nadapter:\n  <<: *base\n  rank: 5\n"
    recipe = read(text)
    assert (recipe.domain, recipe.adapter) == (LoRA(rank=2), LoRA(rank=5))


WRONG_OVERRIDES = {
    "seed": "override seed is not key.sub=value.",
    "=3": "override =3 is not key.sub=value.",
    "optim..peak_lr=3": "override optim..peak_lr=3 is not key.sub=value.",
    "seed.sub=3": "override seed.sub: seed is a value, not a section; give it whole.",
    "stack.0=3": "override stack.0: stack is a value, not a section; give it whole.",
    "optim={": "override optim line 1: " + NOT_YAML,
    "optim={peak_lr: 1, peak_lr: 2}": (
        "override optim line 1: key peak_lr is given twice; keep one."
    ),
    "sead=3": "FILE: unknown key sead; did you mean seed?",
    "seed=": "FILE: seed is empty: it should be a valid integer",
}


@pytest.mark.parametrize(("override", "message"), WRONG_OVERRIDES.items())
def test_a_wrong_override_is_refused_by_name(refusal, override, message):
    assert refusal("seed: 1\nstack: []", override) == message


@pytest.mark.parametrize(
    ("words", "taken", "name"),
    [
        ("Died (30-d)", (), "died-30-d"),
        ("病人", (), "other"),
        ("病人", ("other", "other-2"), "other-3"),
        ("A b", ("a-b",), "a-b-2"),
        ("x" * 80, ("x" * 64,), "x" * 60 + "-2"),
        (".hidden", (), "hidden"),
        ("fit_", (), "fit_"),
    ],
)
def test_words_become_a_name_that_is_not_taken(words, taken, name):
    assert config.as_name(words, "other", taken=taken) == name
    assert TypeAdapter(config.Name).validate_python(name) == name


def test_a_recipe_is_loaded_without_reading_source_code():
    """Reading what each key is for would double the time of every command."""
    code = "import linecache, notetune.recipe.recipe; print(len(linecache.cache))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
