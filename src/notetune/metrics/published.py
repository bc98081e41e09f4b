"""Published results that a report shows beside ours, and which of our rows is which of theirs.

Our names are those that `recipes/paper.yaml` gives to its backbones, methods and encoders.
"""

from dataclasses import dataclass
from typing import Final, Literal

PublicationName = Literal["gema-2023"]


@dataclass(frozen=True)
class PublishedMethod:
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


@dataclass(frozen=True)
class PublishedModel:
    """A published model of step 2: AUROC of each task in their order, as fractions, and the mean.

    `row` is what the publication calls it, `ours` what `ModelRow` does; the mean is as printed.
    """

    row: str
    ours: str
    aurocs: tuple[float, ...]
    mean: float


@dataclass(frozen=True)
class Publication:
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


_BACKBONES: Final = {
    "clinical-llama-7b": "Clinical LLaMA",
    "llama-7b": "LLaMA",
    "pmc-llama-7b": "PMC-LLaMA",
}
_METHODS: Final = {
    "full": "full fine-tuning",
    "lora": "LoRA",
    "adaptation-prompts": "Adaptation Prompt",
    "prefix-tuning": "Prefix Tuning",
    "prompt-tuning": "Prompt Tuning",
    "p-tuning": "P-tuning",
}
_VARIANTS: Final = {
    "full-domain": "head only",
    "head-only": "head only",
    "task-lora": "LoRA",
    "domain-frozen": "domain LoRA frozen",
    "domain-frozen+task-lora": "domain LoRA frozen + task LoRA",
    "domain-trainable": "domain LoRA trainable",
    "domain-trainable+task-lora": "domain LoRA trainable + task LoRA",
}
_ENCODERS: Final = {
    "bluebert+full": "BlueBERT",
    "umlsbert+full": "UmlsBERT",
    "bio-clinical-bert+full": "Bio+ClinicalBERT",
    "core+full": "CORe",
}
_TABLE_2: Final[dict[str, tuple[str, float, float, int, str]]] = {
    "clinical-llama-7b/full": ("6.7B (100 %)", 1.811, 2.210, 4, "49:26:38"),
    "llama-7b/lora": ("8.4M (0.12 %)", 1.858, 2.244, 1, "21:37:42"),
    "llama-7b/adaptation-prompts": ("1.2M (0.02 %)", 2.561, 2.865, 1, "24:57:17"),
    "llama-7b/prefix-tuning": ("5.2M (0.08 %)", 2.815, 2.748, 1, "20:11:07"),
    "llama-7b/prompt-tuning": ("61.4K (0.0009 %)", 4.846, 4.007, 1, "23:27:28"),
    "llama-7b/p-tuning": ("16.1M (0.24 %)", 2.723, 3.271, 1, "23:49:31"),
    "pmc-llama-7b/lora": ("2.1M (0.03 %)", 1.938, 2.404, 1, "21:32:59"),
    "pmc-llama-7b/adaptation-prompts": ("1.2M (0.018 %)", 2.374, 2.867, 1, "23:33:10"),
    "pmc-llama-7b/prefix-tuning": ("2.6M (0.04 %)", 1.789, 2.848, 1, "20:13:10"),
    "pmc-llama-7b/prompt-tuning": ("41K (0.0006 %)", 4.821, 4.385, 1, "22:25:32"),
    "pmc-llama-7b/p-tuning": ("2.2M (0.03 %)", 3.491, 4.572, 1, "22:28:15"),
}
_TABLE_3: Final = {  # the last figure is the mean
    "bluebert+full": (0.5731, 0.8134, 0.7292, 0.7339, 0.7662, 0.7232),
    "umlsbert+full": (0.5829, 0.8183, 0.7302, 0.7208, 0.7832, 0.7270),
    "bio-clinical-bert+full": (0.5400, 0.7267, 0.7221, 0.7665, 0.8321, 0.7175),
    "core+full": (0.5211, 0.7152, 0.6417, 0.7240, 0.8451, 0.6940),
    "clinical-llama-7b/full-domain": (0.5228, 0.6322, 0.5606, 0.5931, 0.6342, 0.5886),
    "llama-7b/head-only": (0.5138, 0.6680, 0.5765, 0.6006, 0.6383, 0.5861),
    "llama-7b/task-lora": (0.5165, 0.7489, 0.6570, 0.7837, 0.8749, 0.7162),
    "llama-7b/domain-frozen": (0.5222, 0.6088, 0.5505, 0.5764, 0.6248, 0.5765),
    "llama-7b/domain-frozen+task-lora": (0.5231, 0.6172, 0.5516, 0.5770, 0.6258, 0.5790),
    "llama-7b/domain-trainable": (0.5141, 0.8116, 0.7244, 0.8197, 0.8869, 0.7513),
    "llama-7b/domain-trainable+task-lora": (0.5381, 0.8302, 0.7326, 0.8193, 0.8831, 0.7607),
    "pmc-llama-7b/head-only": (0.5306, 0.6677, 0.5794, 0.6017, 0.6463, 0.6051),
    "pmc-llama-7b/task-lora": (0.5384, 0.7803, 0.6614, 0.7881, 0.8668, 0.7270),
    "pmc-llama-7b/domain-frozen": (0.5133, 0.6719, 0.5813, 0.6359, 0.6826, 0.6006),
    "pmc-llama-7b/domain-frozen+task-lora": (0.5090, 0.6700, 0.5831, 0.6050, 0.6442, 0.6023),
    "pmc-llama-7b/domain-trainable": (0.5288, 0.7586, 0.6589, 0.7966, 0.8685, 0.7223),
    "pmc-llama-7b/domain-trainable+task-lora": (0.5221, 0.7654, 0.6842, 0.7867, 0.8708, 0.7258),
}


def _row(ours: str, names: dict[str, str]) -> str:
    """What the publication calls a row."""
    backbone, _, name = ours.partition("/")
    return f"{_BACKBONES[backbone]}, {names[name]}" if name else _ENCODERS[backbone]


GEMA_2023: Final = Publication(
    source="Gema et al. (arXiv 2307.03042)",
    methods=tuple(PublishedMethod(_row(m, _METHODS), m, *row) for m, row in _TABLE_2.items()),
    about_methods=(
        "Perplexities compare only where tokens and averaging are the same: the paper's are exp of "
        "an unweighted mean of batch means, on notes split at random, and its train value is one "
        "micro-batch's. Its time is that of an epoch on A100-80GB, after at most 20 trials."
    ),
    tasks={
        "PMV": "ventilation",
        "MOR": "mortality",
        "LOS": "length_of_stay",
        "DIAG": "diagnoses",
        "PROC": "procedures",
    },
    models=tuple(
        PublishedModel(_row(m, _VARIANTS), m, row[:-1], row[-1]) for m, row in _TABLE_3.items()
    ),
    about_models=(
        "The paper has one run, no interval, and at most 20 trials. Its DIAG and PROC are scored "
        "on a softmax over all labels, its LOS one class against one, and rare labels count, which "
        "ours leave out; its task LoRA on a domain LoRA never acted. Three of its averages are "
        "not the mean of their five tasks: CORe would have 0.6894, LLaMA with a head only 0.5994, "
        "PMC-LLaMA with a frozen domain LoRA 0.6170."
    ),
)
"""Tables 2 and 3.

Source:
    arXiv 2307.03042, Tables 2 and 3; what differs from ours as the published code does it.
"""
PUBLICATIONS: Final[dict[PublicationName, Publication]] = {"gema-2023": GEMA_2023}
