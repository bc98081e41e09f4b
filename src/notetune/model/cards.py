"""What bundles say of themselves, read and written."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, NonNegativeInt, PositiveInt

from notetune import manifest, storage
from notetune.config import Name, parse
from notetune.errors import BundleError
from notetune.model.backbone_folder import Dtype
from notetune.model.layers import Layers, Pooling
from notetune.plain.bundles import FORMAT, ColumnsCard, HybridCard, PlainCard, WordsCard

BUNDLE = "bundle.json"
_FORMATS = (1, FORMAT)
_SCORES = ".parquet"


class BundleCard(PlainCard):
    """What a bundle with a language model says of itself.

    The first format did not say what stands round documents: BOS before each, EOS after a note.
    """

    model: Literal["language-model"] = "language-model"
    variant: str
    """Which adapters it has and which of them trained with the head."""
    pooling: Pooling
    layers: Layers = "last"
    max_tokens: Annotated[int, Field(ge=3)]
    """Longest document: at least an opener, a token and an end."""
    max_pieces: Annotated[PositiveInt, Field(le=2**31 - 1)] = 1
    """Most documents of one note; what is beyond them is cut off."""
    opener: str = ""
    opener_id: NonNegativeInt | None = None
    end_id: NonNegativeInt | None = None
    ends_every_piece: bool = False
    """These four are `tokens.edges.Edges` with `join`."""
    backbone_name: str
    """Of the folder it was trained on."""
    backbone_licence: str = ""
    """As that folder's README.md names it."""
    backbone_licence_text: str = ""
    """Of that folder's LICENSE file, up to 20,000 characters."""
    backbone_fingerprint: str
    dtype: Dtype = "float32"
    """Of the backbone's weights in training and scoring."""
    adapters: tuple[Name, ...]
    """Names, in the order they are put on."""


Card = BundleCard | WordsCard | ColumnsCard | HybridCard
_CARDS: dict[str, type[Card]] = {c.model_fields["model"].default: c for c in get_args(Card)}


def save_card(folder: Path, card: Card) -> None:
    """Write a card into an existing folder."""
    storage.write_json(folder / BUNDLE, card.model_dump(mode="json"))


def read_card(folder: Path) -> Card:
    """The card of a bundle, after its files were found intact.

    Scores that a cell left beside them name patients, so they may be gone.

    Raises:
        BundleError: If the folder is not a bundle, or another file is missing or damaged.
    """
    if not (folder / BUNDLE).is_file() or not (folder / manifest.MANIFEST).is_file():
        # A cell, a run folder, or one of a backbone.
        below = (f"*/{BUNDLE}", f"cells/*/*/*/{BUNDLE}", f"backbones/*/cells/*/*/*/{BUNDLE}")
        inside = [path.parent for some in below for path in sorted(folder.glob(some))]
        way_out = f"Is {inside[0]} meant?" if inside else "`notetune downstream` writes bundles."
        if not folder.exists():
            way_out = "There is no such folder."
        if (folder / manifest.MANIFEST).is_file() and [*folder.glob(f"*{_SCORES}")]:
            way_out = "It holds scores alone, as of prevalence or tf-idf-all; name another model."
        raise BundleError(
            f"{folder} is not a bundle: it needs {BUNDLE} and {manifest.MANIFEST}. {way_out}"
        )
    listed = [*manifest.damaged_files(folder, (BUNDLE,)), *manifest.damaged_files(folder)]
    if damaged := [name for name in listed if not name.endswith(_SCORES)]:
        raise BundleError(
            f"{folder}: {damaged[0]} is missing or differs from the manifest; restore the bundle "
            "from a copy or train it again."
        )
    card = storage.read_json(folder / BUNDLE)
    if not isinstance(card, dict):
        raise BundleError(f"{folder / BUNDLE} is no card of a bundle; restore it from a copy.")
    if card.get("format") not in _FORMATS:
        raise BundleError(
            f"{folder} has format {card.get('format')}; this version reads "
            f"{' and '.join(map(str, _FORMATS))}. Use the notetune version that wrote it."
        )
    model = card.get("model", "language-model")
    if model not in tuple(_CARDS):  # it may be of any type
        raise BundleError(
            f"{folder} is a bundle of kind {model}; this version reads {', '.join(_CARDS)}."
        )
    return parse(_CARDS[model], card, str(folder / BUNDLE))


def read_language_model_card(folder: Path) -> BundleCard:
    """As `read_card`, of a bundle with a language model.

    Raises:
        BundleError: Also if it has none of its own.
    """
    card = read_card(folder)
    if not isinstance(card, BundleCard):
        raise BundleError(f"{folder} is a {card.model} bundle, which has no backbone of its own.")
    return card
