"""Checkpoints that were damaged: what is read is what was saved, or it is passed over."""

import os
import random
import shutil
import zipfile
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.engine.checkpoint import Checkpoints, TrainState, load_model, split_model
from jaxup.files import InputError

STEPS = (4, 8, 12)


def positions():
    return iter(grain.MapDataset.range(100).to_iter_dataset(grain.ReadOptions(num_threads=0)))


def state_of(step):
    """A state whose every array tells the step."""
    model = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    _, params, rest = split_model(jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, step, x.dtype)), model))
    return TrainState(jnp.int32(step), params, rest, {"moment": jnp.asarray(np.full((2, 3), step, np.float32))})


def restored(run_dir):
    """The step that a training would go on from."""
    checkpoints, iterator = Checkpoints(run_dir, keep=3), positions()
    try:
        step, state = checkpoints.restore(state_of(0), iterator)
    finally:
        checkpoints.close()
    assert {np.asarray(leaf).item(0) for leaf in jax.tree.leaves(state)} == {step}, "values of another step"
    assert next(iterator) == step
    return step


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run_dir, iterator = tmp_path_factory.mktemp("saved") / "run", positions()
    checkpoints = Checkpoints(run_dir, keep=3)
    for step in range(1, STEPS[-1] + 1):
        next(iterator)
        if step in STEPS:
            checkpoints.save(step, state_of(step), iterator.get_state())
    checkpoints.close()
    return run_dir


@pytest.fixture
def run_dir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def halve(item):
    def damage(checkpoint):
        for path in files(checkpoint / item):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def another_position(checkpoint):
    (path,) = (checkpoint / "data").glob("*.json")
    path.write_text(path.read_text().replace("12", "11"))


def copied(item):
    """One step's folder in the place of another's."""

    def damage(checkpoint):
        shutil.rmtree(checkpoint / item)
        shutil.copytree(checkpoint.with_name("4") / item, checkpoint / item)

    return damage


def empty(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def as_a_whole(checkpoint):
    shutil.rmtree(checkpoint)
    shutil.copytree(checkpoint.with_name("4"), checkpoint)


DAMAGES = {
    **{f"half of {item}": halve(item) for item in ("model", "optimizer", "data", "digest")},
    **{f"{item} of another step": copied(item) for item in ("model", "optimizer", "data", "digest")},
    "another position": another_position,
    "another step": as_a_whole,
    "empty folder": empty,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.first(2)
def test_a_damaged_checkpoint_is_passed_over(run_dir, capsys, damage):
    newest = run_dir / "checkpoints" / "12"
    damage(newest)
    content = [(path.name, path.read_bytes()) for path in files(newest)]
    assert restored(run_dir) == 8
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {newest}: cannot be read as a checkpoint")
    assert warning.endswith("taking the checkpoint of step 8")
    aside = newest.with_name("unreadable-12")
    assert [(path.name, path.read_bytes()) for path in files(aside)] == content, "nothing is deleted"
    assert restored(run_dir) == 8 and capsys.readouterr().err == "", "it is said once"


@pytest.mark.thorough
def test_evaluation_passes_over_damage_and_changes_nothing(run_dir, capsys):
    halve("model")(run_dir / "checkpoints" / "12")
    halve("model")(run_dir / "checkpoints" / "8")
    before = {path: path.read_bytes() for path in files(run_dir)}
    model = load_model(run_dir, nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    assert (np.asarray(model.mean[...]) == 4).all()
    assert "nor can 1 more: taking the checkpoint of step 4" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files(run_dir)} == before
    with pytest.raises(InputError, match="checkpoints/12: cannot be read as a checkpoint"):
        load_model(run_dir, model, step=12)


@pytest.mark.thorough
def test_none_that_can_be_read_is_one_line(run_dir):
    for step in STEPS:
        halve("optimizer")(run_dir / "checkpoints" / str(step))
    before = {path: path.read_bytes() for path in files(run_dir)}
    with pytest.raises(InputError, match="checkpoints/12: cannot be read as a checkpoint") as caught:
        restored(run_dir)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in files(run_dir)} == before


@pytest.mark.thorough
def test_a_damaged_step_is_saved_again(run_dir):
    halve("model")(run_dir / "checkpoints" / "12")
    for _ in range(2):
        checkpoints, iterator = Checkpoints(run_dir, keep=2), positions()
        checkpoints.restore(state_of(0), iterator)
        checkpoints.save(12, state_of(12), {"next_index": 12})
        checkpoints.close()
        assert restored(run_dir) == 12
        halve("model")(run_dir / "checkpoints" / "12")
    names = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert names == {"8", "12", "unreadable-12", "unreadable-12-2"}


def test_checkpoints_of_older_versions_have_no_digest(run_dir, capsys):
    shutil.rmtree(run_dir / "checkpoints" / "12" / "digest")
    assert restored(run_dir) == 12
    assert (load_model(run_dir, nnx.BatchNorm(3, rngs=nnx.Rngs(0))).mean[...] == 12).all()
    copied("optimizer")(run_dir / "checkpoints" / "12")
    assert restored(run_dir) == 8
    assert "12: cannot be read as a checkpoint, it is that of step 4" in capsys.readouterr().err


def test_a_checkpoint_of_the_first_version_is_read(tmp_path, capsys):
    """Later versions have to read it: this file stays as it is."""
    with zipfile.ZipFile(Path(__file__).parent / "former_runs" / "checkpoint-0.1.0.zip") as archive:
        archive.extractall(tmp_path)
    assert restored(tmp_path) == 8
    assert (load_model(tmp_path, nnx.BatchNorm(3, rngs=nnx.Rngs(0))).mean[...] == 8).all()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/16", "checkpoints/.16", "checkpoints/016"])
@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.first(2)
def test_what_else_lies_there(run_dir, capsys, name, kind):
    """A file in the place of the folder is an error; whatever is no checkpoint is left alone."""
    stray = run_dir / name
    if stray.exists():
        shutil.rmtree(stray)
    stray.mkdir() if kind == "folder" else stray.write_text("x")
    model = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    if name != "checkpoints":
        load_model(run_dir, model)
        assert restored(run_dir) == 12
        said = "checkpoints/16: cannot be read" in capsys.readouterr().err
        assert said == ((name, kind) == ("checkpoints/16", "folder"))
        return
    with pytest.raises(InputError, match=r"checkpoints: expected a directory|holds no checkpoints"):
        load_model(run_dir, model)
    if kind == "folder":
        assert restored(run_dir) == 0
    else:
        with pytest.raises(InputError, match="checkpoints: expected a directory of checkpoints, got a file"):
            restored(run_dir)


MUTATIONS = {
    "bit": lambda path, chance: _changed(path, chance, lambda old: old ^ (1 << chance.randrange(8))),
    "byte": lambda path, chance: _changed(path, chance, lambda old: chance.randrange(256)),
    "digit": lambda path, chance: _changed(path, chance, lambda old: 48 + (old - 47) % 10 if 48 <= old < 58 else old),
    "cut": lambda path, chance: path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size or 1)]),
    "emptied": lambda path, chance: path.write_bytes(b""),
    "zeros": lambda path, chance: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path, chance: path.write_bytes(path.read_bytes() + chance.randbytes(9)),
    "gone": lambda path, chance: path.unlink(),
    "folder gone": lambda path, chance: shutil.rmtree(path.parent),
    "folder": lambda path, chance: (path.unlink(), path.mkdir()),
    "link to itself": lambda path, chance: (path.unlink(), path.symlink_to(path)),
    "other step": lambda path, chance: _from_another_step(path),
}


def _changed(path, chance, change):
    content = bytearray(path.read_bytes())
    if content:
        at = chance.randrange(len(content))
        content[at] = change(content[at])
    path.write_bytes(content)


def _from_another_step(path):
    parts = list(path.parts)
    parts[parts.index("12")] = "4"
    other = type(path)(*parts)
    path.write_bytes(other.read_bytes() if other.is_file() else b"{}")


def mutated(saved, folder, number):
    """The outcome of mutation number n, of the newest checkpoint: the step that is read, or an error."""
    chance = random.Random(number)
    kind = list(MUTATIONS)[number % len(MUTATIONS)]
    run_dir = shutil.copytree(saved, folder / str(number))
    MUTATIONS[kind](chance.choice(files(run_dir / "checkpoints" / "12")), chance)
    step = restored(run_dir)
    shutil.rmtree(run_dir)
    return kind, step


def check_mutations(saved, folder, numbers):
    outcomes = [mutated(saved, folder, number) for number in numbers]
    assert {step for _, step in outcomes} <= {8, 12}
    assert any(step == 8 for _, step in outcomes)


@pytest.mark.thorough
def test_mutated_files(saved, tmp_path):
    check_mutations(saved, tmp_path, range(len(MUTATIONS)))


@pytest.mark.slow
def test_many_mutated_files(saved, tmp_path):
    check_mutations(saved, tmp_path, range(int(os.environ.get("JAXUP_MUTATIONS", "600"))))
