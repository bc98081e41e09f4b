"""Published results that a report shows beside ours, and which of our rows is which of theirs."""

from importlib.resources import files
from pathlib import Path
from typing import Literal

from notetune.config import Config, load

PublicationName = Literal["gema-2023"]


class PublishedMethod(Config):
    """A published method of step 1.

    `row` is what the publication calls it, `ours` what `MethodRow` does; parameters and the time of
    an epoch (h:m:s) are as printed.
    """

    row: str
    ours: str
    trained: str
    train_perplexity: float
    test_perplexity: float
    gpus: int
    time: str


class PublishedModel(Config):
    """A published model of step 2: AUROC of each task in their order, as fractions, and the mean.

    `row` is what the publication calls it, `ours` what `ModelRow` does; the mean is as printed.
    """

    row: str
    ours: str
    aurocs: tuple[float, ...]
    mean: float


class Publication(Config):
    """The tables of a publication.

    `tasks` gives our name of each task by the published one; `about_...` is what a reader must know
    who compares a table with ours.
    """

    source: str
    methods: tuple[PublishedMethod, ...]
    about_methods: str
    tasks: dict[str, str]
    models: tuple[PublishedModel, ...]
    about_models: str


def publication(name: PublicationName) -> Publication:
    """A publication, from the file of its name in `data/`."""
    return load(Publication, Path(str(files("notetune.metrics") / f"data/{name}.yaml")))
