"""Command line of the experiments: `python -m experiments TASK COMMAND [options]`.

A task is a subpackage, named in `TASKS` and imported only when it is chosen. It exports

    COMMANDS: dict[str, Callable]  command -> function of one frozen dataclass, or of keyword options; the
        first line of its docstring is the help.
    PRESETS: dict[str, dict[str, Callable]]  command -> preset -> function without arguments that returns the
        dataclass; its docstring is the help, and the first preset is the default. Optional. The preset "smoke" shows
        in seconds that everything works; --smoke is short for it.

Bad input ends in one line on stderr and exit status 2; with JAXUP_TRACEBACK=1 in a traceback.
"""

import argparse
import gc
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jaxup._heap import start_with_kept_heap, use_kept_heap
from jaxup._signals import Stopped, handled, leave, stop

TASKS = {
    "joint-upsampling": "Depth maps upsampled under the guidance of an RGB image.",
    "reconstruction": "Images reconstructed from small maps, by pairs of downsampling and upsampling.",
    "super-resolution": "Photographs enlarged two, four or eight times.",
    "denoising": "Noise removed from photographs, with and without downsampling stages in the network.",
    "segmentation": "Images segmented into classes, with any upsampler in the network.",
    "instances": "Objects found with their masks, and panoptic maps, with any upsampler in the feature pyramid.",
    "matting": "Alpha mattes of images with trimaps, with any pair of down- and upsampling in the network.",
    "monocular-depth": "Depth in metres from one image, with any upsampler in the network.",
    "probe": "Linear probes on frozen features that any upsampler brings to full resolution.",
    "bench": "Speed and memory of the operators.",
}

_PROG = "python -m experiments"
_EPILOG = """\
--distributed, anywhere on the line (or JAXUP_DISTRIBUTED=1): one process of several that train together, as
started by Slurm, Open MPI, Kubernetes or on Cloud TPU; elsewhere with --coordinator HOST:PORT --processes N --process I
(or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID). JAXUP_TRACEBACK=1: show where an error comes from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status.

    0, 1 (training failed), 2 (bad input), 130 (interrupted, SIGINT) or 143 (terminated, SIGTERM).
    """
    try:
        with handled(stop, signal.SIGTERM):
            _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Stopped as stopped:
        return stopped.status
    except (ValueError, OSError) as error:
        return _report(error, 2)
    except RuntimeError as error:
        from experiments.engine.progress import TrainingError  # not at the top: it imports JAX

        if not isinstance(error, TrainingError):
            _tell(error, 1)
            raise
        return _report(error, 1)
    except Exception as error:  # a mistake of ours
        _tell(error, 1)
        raise
    return 0


def _run(arguments: list[str]) -> None:
    processes, arguments = _processes(arguments)
    task = _choose(_PROG, "Experiments on top of jaxup.", "TASK", TASKS, arguments)
    module = importlib.import_module(f"experiments.{task.replace('-', '_')}")
    commands: Mapping[str, Callable[..., Any]] = module.COMMANDS
    lines = {name: _first_line(command) for name, command in commands.items()}
    command = _choose(f"{_PROG} {task}", inspect.getdoc(module) or "", "COMMAND", lines, arguments[1:])
    use_kept_heap()
    if processes is not None:
        from experiments.engine.failing import watch  # not at the top: they import JAX, and --help is to be quick
        from experiments.engine.processes import join

        join(*processes)
        watch()
    presets = getattr(module, "PRESETS", {}).get(command, {})
    _call(commands[command], presets, f"{_PROG} {task} {command}", arguments[2:])


def _processes(arguments: list[str]) -> tuple[tuple[str | None, int | None, int | None] | None, list[str]]:
    """Coordinator, number and index of processes, if there are several; and the other arguments."""
    parser = argparse.ArgumentParser(_PROG, add_help=False, allow_abbrev=False)
    parser.add_argument("--distributed", action="store_true")
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    found, others = parser.parse_known_args(arguments)
    chosen = found.coordinator, found.processes, found.process
    wanted = found.distributed or os.environ.get("JAXUP_DISTRIBUTED", "0") not in ("", "0")
    return (chosen if wanted or chosen != (None, None, None) else None), others


def _choose(prog: str, description: str, kind: str, choices: Mapping[str, str], arguments: list[str]) -> str:
    """Parses the first argument, which is one of `choices` or asks for help."""
    parser = argparse.ArgumentParser(
        prog, description=description, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="name", metavar=kind, required=True)
    for name, line in choices.items():
        subparsers.add_parser(name, help=line.replace("%", "%%"), add_help=False)
    return parser.parse_args([argument.replace("_", "-") for argument in arguments[:1]]).name


def _call(
    command: Callable[..., Any], presets: Mapping[str, Callable[[], Any]], prog: str, arguments: list[str]
) -> None:
    """Parses the options of a command and runs it."""
    import tyro

    options: dict[str, Any] = {"prog": prog, "config": (tyro.conf.OmitArgPrefixes,)}
    if not presets:
        tyro.cli(command, args=arguments, **options)
        return
    parser = argparse.ArgumentParser(prog, add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", choices=list(presets), default=next(iter(presets)))
    if "smoke" in presets:
        parser.add_argument("--smoke", action="store_true")  # short for --preset smoke, whatever else is chosen
    chosen, arguments = parser.parse_known_args(arguments)
    if getattr(chosen, "smoke", False):
        chosen.preset = "smoke"
    default = presets[chosen.preset]()
    options["description"] = _with_presets(command, presets, chosen.preset)
    with _no_garbage_collection():
        config = tyro.cli(type(default), default=default, args=arguments, **options)
    command(config)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Python 3.11 cannot parse source, as tyro does for its help, while a collection runs code that parses, too."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _with_presets(command: Callable[..., Any], presets: Mapping[str, Callable[[], Any]], chosen: str) -> str:
    heading = f"--preset NAME, one of (the values below are those of {chosen}):"
    lines = [f"{inspect.getdoc(command) or ''}\n", heading]
    for name, preset in presets.items():
        lines += ["", f"{name}: {inspect.getdoc(preset) or ''}"]
    return "\n".join(lines)


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _report(error: Exception, status: int) -> int:
    """Prints one line. A plain ValueError may also be our own mistake, so that it says how to see more."""
    if os.environ.get("JAXUP_TRACEBACK", "0") not in ("", "0"):
        _tell(error, status)
        raise error
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror}"
    if type(error) is ValueError:
        message += " (JAXUP_TRACEBACK=1 shows where)"
    print(f"error: {message}", file=sys.stderr, flush=True)
    _tell(message, status)
    return status


def _tell(error: Exception | str, status: int) -> None:
    """Tells the other processes, if there are any."""
    failing = sys.modules.get("experiments.engine.failing")
    if failing is not None:
        failing.tell(" ".join(str(error).split()), status, error if isinstance(error, Exception) else None)


if __name__ == "__main__":
    start_with_kept_heap()
    leave(main())
