"""A training of a few small tensors through the real loop and the real checkpoints."""

import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from notetune.train.batches import shuffled_steps
from notetune.train.checkpoints import Checkpoints, Position
from notetune.train.loop import Step, train

INPUTS = {"recipe": "small"}
STEPS = 12
NOTES = np.random.default_rng(0).normal(size=(40, 9)).astype(np.float32)


@dataclass(frozen=True)
class Notes:
    """Rows of `NOTES`: eight inputs and an answer each."""

    documents_D: np.ndarray

    @property
    def target_count(self) -> int:
        return len(self.documents_D)

    def halves(self):
        middle = len(self.documents_D) // 2
        parts = self.documents_D[:middle], self.documents_D[middle:]
        return tuple(Notes(part) for part in parts) if middle else (self,)


class SmallTraining:
    """A little network with dropout, AdamW and two rows per step.

    From step 5 on its memory holds three notes at a time, so that rows are halved.
    """

    def __init__(self, folder: Path, *, inputs=INPUTS, steps: int = STEPS) -> None:
        torch.manual_seed(3)
        self.network = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1))
        self.parameters = dict(self.network.named_parameters())
        group = {"params": list(self.parameters.values()), "peak_lr": 1e-2}
        self.optimizer = torch.optim.AdamW([group])
        self.checkpoints = Checkpoints(folder, inputs, self.parameters, self.optimizer)
        self.steps = steps
        self._number = 0

    def summed_loss(self, batch: Notes) -> torch.Tensor:
        if self._number >= 5 and batch.target_count > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        values = torch.from_numpy(NOTES[batch.documents_D])
        predicted = self.network(F.dropout(values[:, :8], 0.2)).squeeze(1)
        return ((predicted - values[:, 8]) ** 2).sum()

    def rows(self, first_step: int):
        for notes in shuffled_steps(len(NOTES), 8, seed=5, first_step=first_step):
            yield [Notes(notes[:5]), Notes(notes[5:])]

    def run_from(self, position: Position):
        """The steps from a position on, each in the log."""
        self._number = position.next_step
        for step in train(
            self.rows(position.next_step),
            self.summed_loss,
            self.optimizer,
            lambda number: 1 - number / self.steps,
            step_count=self.steps,
            max_grad_norm=1.0,
            seed=11,
            first_step=position.next_step,
            halvings=position.halvings,
        ):
            self._number = step.number + 1
            self.checkpoints.log(step)
            yield step

    def run(self, *, save_every: int = 1) -> None:
        """Go on from where the folder is, to the end."""
        for step in self.run_from(self.checkpoints.restore()):
            if (step.number + 1) % save_every == 0:
                self.checkpoints.save(after(step))

    def outcome(self) -> dict[str, object]:
        """What must not differ in any bit: tensors, optimizer, losses and the order of notes."""
        state = self.optimizer.state_dict()["state"]
        moments = {f"{n}.{key}": value for n in state for key, value in state[n].items()}
        steps = [
            (s.number, s.loss.hex(), s.targets, s.grad_norm.hex(), s.learning_rate, s.halvings)
            for s in self.checkpoints.steps()
        ]
        order = [step.order for step in self.checkpoints.steps()]
        return {
            "weights": sha256_of(self.parameters),
            "optimizer": sha256_of(moments),
            "steps": steps,
            "order": order,
        }


def after(step: Step) -> Position:
    return Position(step.number + 1, step.halvings)


def sha256_of(tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def as_json(outcome) -> str:
    return json.dumps(outcome, sort_keys=True)


def in_child(work) -> int:
    """Run `work` in a forked process; what `os.waitpid` says of its end."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        child = os.fork()  # Python 3.12 warns of threads; this child starts and waits for none
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]
