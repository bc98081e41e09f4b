"""The stock side of the benchmarks of training: transformers' Trainer on padded notes."""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

NOTES_PER_BATCH, BATCHES_PER_STEP = 10, 4


def trainer(
    model: Any,
    examples: list[dict[str, Any]],
    collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    folder: str,
    device: torch.device,
    *,
    is_grouped: bool = True,
) -> Trainer:
    """A Trainer of one epoch over the examples, in batches of like lengths or at random."""
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=NOTES_PER_BATCH,
        per_device_eval_batch_size=NOTES_PER_BATCH,
        gradient_accumulation_steps=BATCHES_PER_STEP,
        train_sampling_strategy="group_by_length" if is_grouped else "random",
        learning_rate=3e-4,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
        remove_unused_columns=False,
        label_names=["labels"],
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    stock = Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collator)
    stock.remove_callback(PrinterCallback)
    return stock


def padded_notes(examples: list[dict[str, Any]], pad_to: int) -> dict[str, torch.Tensor]:
    """Notes padded on the right; the first token of a note is no target, as in packed rows."""
    width = pad_to or max(len(example["input_ids"]) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        length = len(example["input_ids"])
        ids[row, :length] = torch.from_numpy(example["input_ids"])
        mask[row, :length] = 1
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def be_quiet() -> None:
    """Leave the rows alone on the screen."""
    warnings.simplefilter("ignore")
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
