"""What training shows: bars, lines, and TensorBoard."""

import importlib.util
import io
import sys

import numpy as np
import pytest

from experiments.engine.config import RunConfig, open_run
from experiments.engine.progress import progress, read_metrics
from jaxup.files import InputError
from tests.experiments.test_config import Config
from tests.experiments.tiny_run import train


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream, bars", [(Terminal, True), (io.StringIO, False)])
def test_a_terminal_gets_a_bar_and_a_file_plain_lines(monkeypatch, stream, bars):
    monkeypatch.setattr(sys, "stderr", stream())
    with progress(2, 5) as show:
        for step in (3, 4, 5):
            show(step, {"loss": 0.25} if step == 4 else None)
    said = sys.stderr.getvalue()
    assert "continuing after step 2 of 5" in said and "loss 0.25" in said
    assert ("5/5" in said and "\r" in said) if bars else said.splitlines()[1:] == ["step 4/5  loss 0.25"]


@pytest.mark.thorough
def test_tensorboard_shows_what_the_metrics_say(tmp_path):
    events = pytest.importorskip("tensorboardX").proto.event_pb2
    train(RunConfig(tmp_path, steps=4, log_every=2, save_every=2, tensorboard=True))
    (file,) = (tmp_path / "tensorboard").iterdir()
    content, found = file.read_bytes(), []
    while content:  # length, its checksum, event, its checksum
        (length,) = np.frombuffer(content, "<u8", 1)
        event = events.Event.FromString(content[12 : 12 + int(length)])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        content = content[16 + int(length) :]
    lines = read_metrics(tmp_path)
    expected = [(line["step"], name, value) for line in lines for name, value in line.items() if name != "step"]
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    np.testing.assert_allclose([row[2] for row in found], [row[2] for row in expected], rtol=1e-6)


def test_tensorboard_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="tensorboard: needs the package tensorboardX, which is not installed"):
        open_run(tmp_path / "run", Config(RunConfig(tmp_path / "run", tensorboard=True)))
    assert not (tmp_path / "run").exists()
