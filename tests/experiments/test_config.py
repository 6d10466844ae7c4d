"""Configurations as JSON, and the run directories that belong to them."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest

from experiments.engine.config import MAY_DIFFER, RunConfig, from_json, load_config, open_run, to_json
from experiments.engine.optim import Adam
from experiments.engine.stored import WAS_FLAT
from jaxup.files import InputError


@dataclasses.dataclass(frozen=True)
class Scenes:
    count: int = 3
    size: tuple[int, int] = (4, 6)


@dataclasses.dataclass(frozen=True)
class Folder:
    path: Path
    limit: int | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    run: RunConfig
    source: Scenes | Folder = Scenes()
    scales: tuple[int, ...] = (4, 8)
    names: dict[str, float] = dataclasses.field(default_factory=dict)
    rate: float = 1e-3
    note: str = dataclasses.field(default="", metadata=MAY_DIFFER)


def test_configurations_survive_json(tmp_path):
    for source in (Scenes(size=(1, 2)), Folder(Path("a/b")), Folder(Path("c"), limit=4)):
        config = Config(RunConfig(tmp_path / "run", steps=7), source, scales=(), names={"a": 0.1}, rate=0.3)
        assert from_json(Config, json.loads(json.dumps(to_json(config)))) == config
    assert from_json(Config, {"run": {"run_dir": "x"}}) == Config(RunConfig(Path("x")))


@pytest.mark.parametrize(
    "data, match",
    [
        ({}, "config.run: missing"),
        ({"run": {"run_dir": "x", "stepz": 1}}, r"config.run.stepz: RunConfig has no such field"),
        ({"run": {"run_dir": "x", "steps": "9"}}, r"config.run.steps: expected int, got '9'"),
        ({"run": {"run_dir": "x", "steps": 0}}, r"steps: expected at least 1, got 0"),
        ({"run": 3}, "config.run: expected the fields of RunConfig, got 3"),
        ({"run": {"run_dir": "x"}, "source": {"class": "Video"}}, "config.source: .* is of no type in"),
        (
            {"run": {"run_dir": "x"}, "source": {"class": "Scenes", "size": [1]}},
            "size: expected 2 values, got 1",
        ),
    ],
)
def test_json_that_is_no_configuration_is_named(data, match):
    with pytest.raises(InputError, match=match):
        from_json(Config, data)


def test_a_run_directory_belongs_to_one_configuration(tmp_path):
    run = RunConfig(tmp_path / "new" / "run", steps=7)
    config = Config(run)
    open_run(run.run_dir, config)
    before = {path.name: path.read_bytes() for path in run.run_dir.iterdir()}
    assert before.keys() == {".lock", "config.json", "versions.json"}
    assert json.loads(before["versions.json"])[0]["jax"] == jax.__version__
    assert load_config(Config, run.run_dir) == config
    moved = dataclasses.replace(run, run_dir=tmp_path, log_every=1, save_every=2, keep=9)
    open_run(run.run_dir, dataclasses.replace(config, run=moved, note="may differ"))
    for other, match in [
        (
            dataclasses.replace(config, run=dataclasses.replace(run, seed=1)),
            "run.seed: it has 0, asked for 1",
        ),
        (dataclasses.replace(config, scales=(4,)), r"scales: it has \[4, 8\], asked for \[4\]"),
        (
            dataclasses.replace(config, source=Folder(Path("x"))),
            "source: it has 'Scenes', asked for 'Folder'",
        ),
        (run, "task: it has 'Config', asked for 'RunConfig'"),
    ]:
        with pytest.raises(InputError, match=match):
            open_run(run.run_dir, other)
    with pytest.raises(InputError, match="expected the configuration of a Scenes"):
        load_config(Scenes, run.run_dir)
    stored = json.loads(before["config.json"])
    del stored["scales"]  # as if the field were new: it has its default
    (run.run_dir / "config.json").write_text(json.dumps(stored))
    open_run(run.run_dir, dataclasses.replace(config, scales=Config.scales))
    (run.run_dir / "config.json").write_bytes(before["config.json"])
    assert before == {path.name: path.read_bytes() for path in run.run_dir.iterdir()}


def test_another_environment_is_added_to_the_versions(tmp_path):
    config = Config(RunConfig(tmp_path))
    open_run(tmp_path, config)
    (tmp_path / "versions.json").write_text('[{"python": "2.7"}]')
    for _ in range(2):
        open_run(tmp_path, config)
    assert len(json.loads((tmp_path / "versions.json").read_text())) == 2


def test_a_directory_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "holiday.png").write_bytes(b"x")
    config = Config(RunConfig(tmp_path))
    with pytest.raises(InputError, match="neither empty nor a run directory"):
        open_run(tmp_path, config)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.png"]
    with pytest.raises(InputError, match="expected a directory, got a file"):
        open_run(tmp_path / "holiday.png", config)
    with pytest.raises(InputError, match="is not a run directory"):
        load_config(Config, tmp_path)
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "config.json.tmp").write_text("{")
    open_run(killed, config)
    assert load_config(Config, killed) == config
    (killed / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json: cannot be read as JSON"):
        open_run(killed, config)


def test_a_run_may_grow_but_not_shrink(tmp_path):
    config = Config(RunConfig(tmp_path, steps=7))
    open_run(tmp_path, config)
    longer = dataclasses.replace(config, run=RunConfig(tmp_path, steps=9))
    open_run(tmp_path, longer)
    assert load_config(Config, tmp_path) == longer
    with pytest.raises(InputError, match=r"run\.steps: it has 9, asked for 7, expected at least as many"):
        open_run(tmp_path, config)
    with pytest.raises(InputError, match=r"run\.seed"):
        open_run(tmp_path, dataclasses.replace(config, run=RunConfig(tmp_path, steps=20, seed=1)))
    assert load_config(Config, tmp_path) == longer


@dataclasses.dataclass(frozen=True)
class Nested:
    run: RunConfig
    data_dir: Path | None = dataclasses.field(default=None, metadata=MAY_DIFFER)
    optimizer: Adam = dataclasses.field(default=Adam(), metadata=WAS_FLAT)


def test_what_older_versions_stored_flat_is_read(tmp_path):
    older = {"class": "Nested", "run": to_json(RunConfig(tmp_path)), "learning_rate": 0.5, "drops": [3], "smoke": False}
    del older["run"]["tensorboard"]
    config = Nested(RunConfig(tmp_path), optimizer=Adam(0.5, (3,)))
    assert from_json(Nested, older) == config
    (tmp_path / "config.json").write_text(json.dumps(older))
    open_run(tmp_path, dataclasses.replace(config, data_dir=tmp_path))
    with pytest.raises(InputError, match=r"optimizer\.learning_rate: it has 0\.5, asked for 0\.1"):
        open_run(tmp_path, dataclasses.replace(config, optimizer=Adam(0.1, (3,))))
    with pytest.raises(InputError, match=r"config\.decay: Nested has no such field"):
        from_json(Nested, older | {"decay": 1})
