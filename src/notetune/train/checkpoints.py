"""Where a training can go on after its process is gone.

A checkpoint is a folder `step-N` that appears whole or not at all and proves itself by checksums.
It holds all that the next step depends on: `train` draws its rows and its dropout from the number
of the step, so no random state is among it.
"""

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from notetune import manifest, runs, storage
from notetune.errors import RunError, RunWarning
from notetune.metrics.learning import Evaluation
from notetune.model.sharded import spread_like, whole
from notetune.train.loop import Step
from notetune.train.parallel import ALONE, World

STEPS = "steps.jsonl"
_STATE, _WEIGHTS, _OPTIMIZER = "state.json", "weights.safetensors", "optimizer.safetensors"
_KEPT = 2


@dataclass(frozen=True)
class Position:
    """How far a training has come, and how often `train` halves the rows by now."""

    next_step: int
    halvings: int = 0
    evaluations: tuple[Evaluation, ...] = ()


class Checkpoints:
    """The checkpoints of one training, and the log of its steps.

    Args:
        folder: Where they are.
        inputs: What the training depends on. A checkpoint of other inputs is never used.
        tensors: All that trains, by name, and what is to be kept beside it, such as its best state.
            Restoring writes into them.
        optimizer: Over those that train.
        world: The processes that train; all read, the first one writes. With a sharded model all
            must save together.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Any,
        tensors: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        world: World = ALONE,
    ) -> None:
        self._folder, self._inputs = folder, storage.fingerprint(inputs)
        self._tensors, self._optimizer = dict(tensors), optimizer
        name_of = {id(tensor): name for name, tensor in tensors.items()}
        # In the order in which the state of the optimizer numbers them.
        self._trained = [
            name_of[id(p)] for group in optimizer.param_groups for p in group["params"]
        ]
        self._log = folder / STEPS
        self._world, self._writes = world, world.rank == 0

    def log(self, step: Step) -> None:
        """Add a line to the log of steps. It is durable once a checkpoint after it is saved."""
        if self._writes:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(step)) + "\n")

    def steps(self) -> list[Step]:
        """The steps in the log, each once; only the first process has them."""
        if not self._writes or not self._log.exists():
            return []
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [Step(**json.loads(line)) for line in lines]

    def save(self, position: Position) -> None:
        """Save a checkpoint, then remove all but the two newest.

        Raises:
            WriteError: If it cannot be written; the checkpoints before it are untouched.
        """
        if not (self._writes or self._world.is_sharded):
            return
        weights, moments = _on_cpu(self._tensors), _on_cpu(self._moments())
        if not self._writes:
            return
        state = {**asdict(position), "scope": self._scope()}
        target = self._folder / f"step-{position.next_step:08}"
        need = sum(tensor.nbytes for tensor in [*weights.values(), *moments.values()])
        with runs.new_folder(target, self._inputs_of(target)) as folder:
            with storage.written(target, need):
                save_file(weights, folder / _WEIGHTS)
                save_file(moments, folder / _OPTIMIZER)
            storage.write_json(folder / _STATE, state)
            shutil.copyfile(self._log, folder / STEPS)
        for older in self._newest_first()[_KEPT:]:
            shutil.rmtree(older)

    def restore(self) -> Position:
        """Put the training where its newest whole checkpoint was; at step 0 if it has none.

        A damaged checkpoint is told in a warning and the one before it is taken. So is a machine
        on which the steps to come can differ in their last bits.

        Raises:
            RunError: If there are checkpoints and none is whole.
        """
        faults: dict[Path, str] = {}
        for folder in self._newest_first():
            try:
                position = self._restore(folder)
            except RunError as error:
                faults[folder] = f"{folder.name}: {error}"
                continue
            if faults and self._writes:
                told = f"{'; '.join(faults.values())}; going on from step {position.next_step}"
                warnings.warn(told, RunWarning, stacklevel=2)
                for damaged in faults:
                    shutil.rmtree(damaged)
            return position
        if faults:
            raise RunError(
                f"no checkpoint in {self._folder} is whole: {'; '.join(faults.values())}. Restore "
                "one from a copy, or delete that folder to train again from the first step."
            )
        if self._writes:
            self._log.unlink(missing_ok=True)
        return Position(next_step=0)

    def _restore(self, folder: Path) -> Position:
        if not manifest.is_finished(folder, self._inputs_of(folder)):
            if damaged := manifest.damaged_files(folder):
                raise RunError(f"{damaged[0]} is missing or damaged")
            raise RunError("is of another run or step")
        weights, moments = _read(folder / _WEIGHTS), _read(folder / _OPTIMIZER)
        keys = sorted({path.partition("/")[0] for path in moments})
        if not self._fits(weights, moments, keys):
            raise RunError("its tensors are not those of this training")
        state = storage.read_json(folder / _STATE)
        self._tell_scope(state.pop("scope"))
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(spread_like(weights[name], tensor))
        values = {
            number: {
                key: spread_like(moments[f"{key}/{name}"], self._tensors[name]) for key in keys
            }
            for number, name in enumerate(self._trained)
        }
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": values})
        if self._writes:
            storage.write_text(self._log, (folder / STEPS).read_text(encoding="utf-8"))
        return TypeAdapter(Position).validate_python(state)

    def _inputs_of(self, folder: Path) -> dict[str, str]:
        return {"training": self._inputs, "checkpoint": folder.name}

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"), reverse=True)

    def _moments(self) -> dict[str, Tensor]:
        """What the optimizer keeps of each tensor that trains, as `key/name`."""
        state = self._optimizer.state_dict()["state"]
        return {f"{key}/{self._trained[n]}": v for n in state for key, v in state[n].items()}

    def _fits(
        self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], keys: Sequence[str]
    ) -> bool:
        """Whether these are the weights of all tensors, and all values for all that train."""
        ours = {name: (tensor.shape, tensor.dtype) for name, tensor in self._tensors.items()}
        return (
            {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()} == ours
            and moments.keys() == {f"{key}/{name}" for key in keys for name in self._trained}
            and all(t.shape in (ours[path.partition("/")[2]][0], ()) for path, t in moments.items())
        )

    def _scope(self) -> dict[str, str | int]:
        """What the bits of a result depend on besides the recipe."""
        device = next(iter(self._tensors.values())).device
        is_cuda = device.type == "cuda"
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
            "processes": self._world.size,
        }

    def _tell_scope(self, then: Mapping[str, Any]) -> None:
        now = self._scope()
        changed = [
            f"{key} {then.get(key)} is now {now[key]}" for key in now if then.get(key) != now[key]
        ]
        if changed and self._writes:
            told = f"resume is not bit-exact: {', '.join(changed)}"
            warnings.warn(told, RunWarning, stacklevel=4)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(tensor.detach()).cpu().contiguous() for name, tensor in tensors.items()}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        raise RunError(f"{path.name} cannot be read") from None
