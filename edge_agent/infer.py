"""``mas-agent infer``: what the models in use make of files, written as arrays and as pictures.

Reads what the daemon put in use (``STATE/models/in-use.json``), or one model's file; it needs neither the
daemon nor torch. Every task is served by the model that was put in use last and has it. Everything is opened
and checked before anything is run or written. It trains nothing and sends nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mas_edge.edge_agent.model_folder import kept
from mas_edge.models import inputs, panels
from mas_edge.models.onnx_file import ModelRefused, check, open_model
from mas_edge.models.tasks import UnknownChoice, WorkloadError, find

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from mas_edge.models.onnx_file import Card, OnnxModel
    from mas_edge.models.tasks import Array, Task
    from mas_edge.wire.messages import Model

MOST_PANELS = 16
"""Of the inputs in one file, so many are drawn."""

BATCH = 64
"""Inputs at a time: the memory of a run grows with their number."""


class Inferred(msgspec.Struct, frozen=True, kw_only=True):
    """One task's output for one file; ``latency_s`` is that of the runs that gave all tasks of the group."""

    input: str
    task: str
    shape: tuple[int, ...]
    latency_s: float
    file: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one input file came to; ``pictures`` may be fewer than its inputs."""

    outputs: tuple[Inferred, ...]
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Serving:
    """A model, and the tasks that it is asked for."""

    model: OnnxModel
    tasks: tuple[str, ...]


def in_use(state: Path, workload: str | None, task: str | None) -> tuple[Serving, ...]:
    """The models in use for one workload, opened, each with the tasks that it serves.

    Raises UnknownChoice if there is none, or no saying which; ModelRefused for a damaged file.
    """
    models = [each.model for each in kept(state / "models").in_use]
    there = sorted({model.workload for model in models})
    if not models:
        raise UnknownChoice(f"no model is in use here ({state}): mas deploy JOB --to this device, or --model")
    if workload is None and len(there) > 1:
        raise UnknownChoice(f"models of {', '.join(there)} are in use: name one by --workload")
    chosen = [model for model in models if model.workload == (workload or there[0])]
    if not chosen:
        raise UnknownChoice(f"no model of workload {workload!r} is in use; there are {', '.join(there)}")
    serves = _serves(chosen, task)
    folder = state / "models"
    opened = ((open_model(folder / m.file.digest, digest=m.file.digest), tasks) for m, tasks in serves)
    return tuple(Serving(model, tasks) for model, tasks in opened)


def one_file(path: Path, task: str | None) -> tuple[Serving, ...]:
    """The model in a file; raises ModelRefused, UnknownChoice for a task that it has not."""
    model = open_model(path)
    if task is not None and task not in model.card.tasks:
        raise UnknownChoice(f"{path}: has no task {task!r}; it has {', '.join(model.card.tasks)}")
    return (Serving(model, (task,) if task else model.card.tasks),)


def _serves(models: list[Model], task: str | None) -> list[tuple[Model, tuple[str, ...]]]:
    """The models with the tasks that each serves: of a task that several have, the last."""
    last = {name: model for model in models for name in model.tasks}
    if task is not None and task not in last:
        raise UnknownChoice(f"no model in use has the task {task!r}; there are {', '.join(sorted(last))}")
    wanted = last if task is None else {task: last[task]}
    served = ((model, tuple(name for name in model.tasks if wanted.get(name) is model)) for model in models)
    return [(model, tasks) for model, tasks in served if tasks]


def infer(serving: tuple[Serving, ...], source: Path, out: Path, *, raw: bool) -> Iterator[Outcome]:
    """What comes of each file, in order, as it is written to ``out``.

    Raises, before anything is run, InputRefused for a file that does not fit or would be overwritten, and
    ModelRefused for models that do not fit the workload installed here; OSError.
    """
    card = serving[0].model.card
    known = _known(serving)
    found = [(path, inputs.read(path, card, raw=raw)) for path in inputs.files(source)]
    _check_places(found, serving, out)
    out.mkdir(parents=True, exist_ok=True)
    for each in serving:
        each.model.run(found[0][1][:1])  # memory is laid out in the first run, which is not timed
    for path, given in found:
        yield _one(serving, path, given, out, known)


def _known(serving: tuple[Serving, ...]) -> tuple[Task, ...]:
    """The tasks of the workload if it is installed here: pictures are better then, and shapes are checked."""
    cards = [each.model.card for each in serving]
    if len({card.input_shape for card in cards}) > 1:
        raise ModelRefused(f"the models in use take inputs of several shapes: {_shapes(cards)}")
    try:
        workload = find(cards[0].workload)
    except WorkloadError:  # not installed, or without its data: inference needs neither
        return ()
    for each in serving:
        check(each.model, workload, each.model.card.tasks)
    return workload.tasks


def _check_places(found: Sequence[tuple[Path, Array]], serving: tuple[Serving, ...], out: Path) -> None:
    """Raises InputRefused where an output would take the place of an input, or of another's output."""
    if out.exists() and not out.is_dir():
        raise inputs.InputRefused(f"{out}: is no folder: name another by --out")
    given = {path.resolve() for path, _ in found}
    whose: dict[Path, Path] = {}
    for path, values in found:
        arrays = [_array_at(out, path, task) for each in serving for task in each.tasks]
        for place in (*arrays, *_pictures_at(out, path, len(values))):
            if place.resolve() in given:
                why = f"what comes of {path} would be written over it: name another folder by --out"
                raise inputs.InputRefused(f"{place}: {why}")
            if (other := whose.setdefault(place, path)) != path:
                raise inputs.InputRefused(f"{place}: would come of {other} and of {path}: rename one of them")


def _array_at(out: Path, path: Path, task: str) -> Path:
    return out / f"{path.stem}.{task}.npy"


def _pictures_at(out: Path, path: Path, number: int) -> list[Path]:
    """Where the first of so many inputs are drawn."""
    if number == 1:
        return [out / f"{path.stem}.png"]
    return [out / f"{path.stem}-{i}.png" for i in range(min(number, MOST_PANELS))]


def _run(model: OnnxModel, given: Array) -> dict[str, Array]:
    """Every task's output, some inputs at a time."""
    parts = [model.run(given[start : start + BATCH]) for start in range(0, len(given), BATCH)]
    return {task: np.concatenate([part[task] for part in parts]) for task in model.card.tasks}


def _shapes(cards: Iterable[Card]) -> str:
    return ", ".join(sorted({str(card.input_shape) for card in cards}))


def _one(
    serving: tuple[Serving, ...], path: Path, given: Array, out: Path, known: tuple[Task, ...]
) -> Outcome:
    outputs: dict[str, Array] = {}
    said = []
    for each in serving:
        began_s = time.perf_counter()
        made = _run(each.model, given)
        latency_s = time.perf_counter() - began_s
        for task in each.tasks:
            file = _array_at(out, path, task)
            np.save(file, made[task], allow_pickle=False)
            outputs[task] = made[task]
            said.append(
                Inferred(
                    input=str(path), task=task, shape=made[task].shape, latency_s=latency_s, file=str(file)
                )
            )
    card = serving[0].model.card
    pictures = _pictures_at(out, path, len(given))
    for i, (example, file) in enumerate(zip(given, pictures, strict=False)):
        shown = {task: values[i] for task, values in outputs.items()}
        panels.panel(example, shown, known, card.normalisation).save(file, "PNG")
    return Outcome(outputs=tuple(said), pictures=tuple(map(str, pictures)))


def in_words(outcome: Outcome) -> str:
    """A line per output and per picture."""
    lines = [
        f"{each.input}  {each.task}  {each.shape}  {each.latency_s * 1e3:.2f} ms  {each.file}"
        for each in outcome.outputs
    ]
    return "\n".join([*lines, *(f"{outcome.outputs[0].input}  picture  {file}" for file in outcome.pictures)])
