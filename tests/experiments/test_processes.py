"""Processes that train together: each reads its rows of batches, and any number goes on with what they saved."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import grain
import jax
import numpy as np
import pytest

from experiments.data import (
    Scenes,
    denoising,
    matting,
    matting_batches,
    monocular_batches,
    reconstruction,
    rooms,
    segmentation_batches,
    segmentation_shapes,
    sources,
    super_resolution,
    training_batches,
)
from experiments.data.batching import batched
from experiments.engine import processes
from experiments.engine.processes import for_each, summed
from experiments.engine.progress import read_metrics
from jaxup.files import InputError
from tests.experiments.tiny_run import tiny_batches

ROOT = Path(__file__).parents[2]


def joint(size):
    return training_batches(Scenes(2, (16, 16)), scales=[2, 4], crop=8, batch_size=size, seed=3)


def enlarged(size):
    photograph = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    patches = super_resolution.Patches({"a": photograph}, scale=2, size=8, stride=4, factors=(1.0,))
    return super_resolution.training_batches(patches, size, seed=3)


def segmented(size):
    how = segmentation_batches.Augmentation(crop=(8, 8))
    return segmentation_batches.training_batches(segmentation_shapes.Shapes(3, (16, 16)), how, batch_size=size, seed=3)


def matted(size):
    how = matting_batches.Augmentation(crop=16)
    return matting_batches.training_batches(sources.Cached(matting.Generated(2, 32)), how, batch_size=size, seed=3)


def measured(size):
    how = monocular_batches.Protocol(height=16)
    return monocular_batches.training_batches(sources.Cached(rooms.Rooms(2, 32)), how, batch_size=size, seed=3)


def noisy(size):
    images = {name: np.zeros((8, width), np.uint8) for name, width in (("a.png", 8), ("b.png", 16))}
    patches = denoising.cut_patches(images, 8, 8, (1.0,))
    owner = denoising.owners(images, patches, (1.0,))
    assert [owner(n) for n in range(3)] == ["a.png", "b.png", "b.png"]
    return denoising.batches(3, size, 3, owner)


def numbered(size):
    """Of patches of the first photographs."""
    name = reconstruction.origins("photos", None, "train")
    assert [name(n) for n in (0, 960, 961)] == ["astronaut (0)", "astronaut (960)", "brick (0)"]
    numbers = grain.MapDataset.range(1000).seed(3).shuffle().repeat()
    return batched(numbers, size, threads=0, name=lambda number: name(int(number)))


STREAMS = {
    "tiny": tiny_batches,
    "joint_upsampling": joint,
    "super_resolution": enlarged,
    "denoising": noisy,
    "reconstruction": numbered,
    "segmentation": segmented,
    "matting": matted,
    "monocular_depth": measured,
}


def read(monkeypatch, stream, size, count, steps, state=None):
    """Batches as several processes read them together, and the position of each process."""
    monkeypatch.setattr(jax, "process_count", lambda: count)
    shares, states = [], []
    for index in range(count):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        iterator = iter(stream(size))
        if state is not None:
            iterator.set_state(state)
        shares.append([next(iterator) for _ in range(steps)])
        states.append(iterator.get_state())
    return [jax.tree.map(lambda *rows: np.concatenate(rows), *step) for step in zip(*shares, strict=True)], states


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.first(2)
def test_processes_read_the_rows_of_one_batch(monkeypatch, stream):
    """The batches of one process, row by row, by any number of them that goes on with the position of any other."""
    alone, states = read(monkeypatch, STREAMS[stream], 4, 1, 4)
    assert states == [{"examples": 16}]
    first, states = read(monkeypatch, STREAMS[stream], 4, 2, 2)
    assert states == [{"examples": 8}] * 2
    second, states = read(monkeypatch, STREAMS[stream], 4, 4, 2, states[0])
    assert states == [{"examples": 16}] * 4
    for expected, got in zip(alone, first + second, strict=True):
        jax.tree.map(np.testing.assert_array_equal, expected, got)
    rows = jax.tree.leaves(alone[0])[0]
    assert any(not np.array_equal(rows[0], row) for row in rows[1:])  # else the order would not matter


@pytest.mark.parametrize("stream", [name for name in STREAMS if name != "tiny"])
@pytest.mark.first(4)
def test_what_is_in_a_batch_has_a_name(stream):
    """Where a loss is not finite: of a file, photograph or scene, not a number."""
    found = STREAMS[stream](4).names(0)
    assert found and not [name for name in found if name.startswith(("example", "sample"))], found


def test_positions_of_older_versions_count_batches(monkeypatch):
    expected, _ = read(monkeypatch, tiny_batches, 4, 1, 3)
    got, states = read(monkeypatch, tiny_batches, 4, 1, 1, {"next_index": 2})
    np.testing.assert_array_equal(expected[2]["x"], got[0]["x"])
    assert states == [{"examples": 12}]
    with pytest.raises(InputError, match="examples: expected a multiple of 4, got 10"):
        read(monkeypatch, tiny_batches, 4, 1, 1, {"examples": 10})


def test_batches_that_processes_cannot_share(monkeypatch):
    with pytest.raises(InputError, match="batch_size: expected a multiple of the 3 processes, got 8"):
        read(monkeypatch, tiny_batches, 8, 3, 1)


def test_the_work_is_shared(monkeypatch):
    """Of two processes, of which the other one is simulated."""
    assert for_each(5, lambda i: i * 0.1) == [i * 0.1 for i in range(5)]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    other = {0: [0.1, 0.3], 1: [0.0, 0.2, 0.4]}
    for index in range(2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        monkeypatch.setattr(
            processes,
            "_all_processes",
            lambda own, index=index: [own, {"made": other[index]}][:: 1 if index == 0 else -1],
        )
        assert for_each(5, lambda i: i / 10) == [0.0, 0.1, 0.2, 0.3, 0.4]
        assert for_each(5, lambda i: i / 10, alone=True) == [0.0, 0.1, 0.2, 0.3, 0.4]
    monkeypatch.setattr(processes, "_all_processes", lambda own: [own, own])
    np.testing.assert_array_equal(summed(lambda: [np.array([1, 2]), np.zeros(())])[0], [2, 4])


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def by_options(index, port):
    return ["--coordinator", f"localhost:{port}", "--processes", "2", "--process", str(index)], {}


def by_slurm(index, port):
    job = {"JOB_ID": "1", "STEP_NODELIST": "localhost", "NTASKS": "2", "PROCID": str(index), "LOCALID": str(index)}
    return ["--distributed"], {f"SLURM_{name}": value for name, value in job.items()} | {"JAX_COORDINATOR_PORT": port}


def by_open_mpi(index, port):
    numbers = {"SIZE": "2", "RANK": str(index), "LOCAL_RANK": str(index)}
    variables = {f"OMPI_COMM_WORLD_{name}": value for name, value in numbers.items()}
    variables["OMPI_MCA_orte_hnp_uri"] = "4096.0;tcp://127.0.0.1:1"
    return ["--distributed"], variables | {"JAX_COORDINATOR_PORT": port}


def trained(run_dir, steps, devices, launch=None):
    """Trains in one process, or in two that were launched in some way."""
    flags = os.environ["XLA_FLAGS"].split()
    flags = [flag for flag in flags if "device_count" not in flag]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    port, running = free_port(), []
    for index in range(1 if launch is None else 2):
        options, variables = ([], {}) if launch is None else launch(index, port)
        command = [sys.executable, "-m", "tests.experiments.tiny_run", str(run_dir), str(steps), *options]
        env = os.environ | {"XLA_FLAGS": " ".join(flags), **variables}
        running.append(subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return np.array([line["loss"] for line in read_metrics(run_dir)])


@pytest.mark.thorough
def test_devices_and_processes_train_as_one_device(tmp_path):
    """Eight devices, then two processes of four, then one device or eight again: one curve of the loss."""
    expected = trained(tmp_path / "alone", 9, 1)
    assert len(expected) == 6  # after steps 2, 3, 4, 6, 8, 9
    run_dir = tmp_path / "together"
    trained(run_dir, 3, 8)
    trained(run_dir, 6, 4, by_slurm)
    shutil.copytree(run_dir, tmp_path / "eight")
    with np.load(run_dir / "weights.npz") as found:  # what the two processes did together
        np.testing.assert_array_equal(found["each"], np.arange(5) / 3)
        np.testing.assert_array_equal(found["sum"], [3, 3])
    np.testing.assert_allclose(trained(run_dir, 9, 1), expected, rtol=1e-5)
    np.testing.assert_allclose(trained(tmp_path / "eight", 9, 8), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("launch", [by_options, by_open_mpi])
def test_two_processes_train_as_one_device(tmp_path, launch):
    together = trained(tmp_path / "together", 9, 4, launch)
    np.testing.assert_allclose(together, trained(tmp_path / "alone", 9, 1), rtol=1e-5)
