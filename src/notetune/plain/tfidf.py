"""TF-IDF of words and pairs of words, of those only that many patients' notes share.

Shapes: N notes, V terms, P patients.
"""

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

_WORDS_AND_PAIRS = (1, 2)
# From Hebrew to Sinhala, where a word is written with them; without Latin's accents.
_MARKS = "".join(chr(c) for c in range(0x590, 0xE00) if unicodedata.category(chr(c))[0] == "M")
_WORD = r"(?u)\b\w\w+\b"
_WORD_WITH_MARKS = rf"(?u)\b\w[\w{_MARKS}]+"


@dataclass(frozen=True)
class Words:
    """V words and pairs of words, lower case, and their inverse document frequencies.

    `has_marks` says whether words go on at combining marks, as of Hindi; before, they ended there.
    """

    terms: tuple[str, ...]
    idf_V: npt.NDArray[np.float64]
    has_marks: bool = False

    def features(self, texts: Sequence[str]) -> Any:
        """`(N, V)` sparse float32 TF-IDF of texts; that of a text is its own."""
        if not self.terms:
            return scipy.sparse.csr_matrix((len(texts), 0), dtype=np.float32)
        counter = CountVectorizer(
            ngram_range=_WORDS_AND_PAIRS,
            vocabulary=self.terms,
            dtype=np.int32,
            token_pattern=_WORD_WITH_MARKS if self.has_marks else _WORD,
        )
        return _weighted(counter.transform(texts), self.idf_V)


@dataclass(frozen=True)
class CountedNotes:
    """Notes with the sparse counts of every term that `min_patients` patients might share.

    Where more than `most_terms` are, those that more patients share are taken.
    """

    patients_N: npt.NDArray[np.str_]
    terms_V: npt.NDArray[np.object_]
    counts_NV: Any
    min_patients: int
    most_terms: int

    def words(self, is_read_N: npt.NDArray[np.bool_]) -> tuple[Words, Any]:
        """The terms that enough patients share among some of the notes, and those notes' TF-IDF.

        Source:
            `idf = ln((1 + N) / (1 + n)) + 1` for a term in n of N notes; `1 + ln(count)`; rows of
            length 1: scikit-learn's smooth, sublinear TF-IDF.
        """
        counts_NV = self.counts_NV[is_read_N]
        is_there_NV = counts_NV.astype(bool).astype(np.int64)
        _, patient_N = np.unique(self.patients_N[is_read_N], return_inverse=True)
        notes, patients = len(patient_N), patient_N.max(initial=-1) + 1
        of_patient_PN = scipy.sparse.csr_matrix(
            (np.ones(notes, np.int64), (patient_N, np.arange(notes))), (patients, notes)
        )
        patients_V = np.asarray((of_patient_PN @ is_there_NV).astype(bool).sum(0)).ravel()
        is_shared_V = patients_V >= self._fewest(patients_V)
        notes_V = np.asarray(is_there_NV.sum(0)).ravel()[is_shared_V]
        idf_V = np.log((1 + notes) / (1 + notes_V)) + 1
        words = Words(tuple(self.terms_V[is_shared_V].tolist()), idf_V, has_marks=True)
        return words, _weighted(counts_NV[:, is_shared_V], idf_V)

    def _fewest(self, patients_V: npt.NDArray[np.int64]) -> int:
        """Patients that must share a term, so that no more terms do than there may be."""
        terms_of_P = np.bincount(patients_V)
        at_least_P = np.cumsum(terms_of_P[::-1])[::-1]
        too_many = np.flatnonzero(at_least_P > self.most_terms)
        return max(self.min_patients, 1 + int(too_many.max(initial=-1)))


def count_terms(
    texts: Sequence[str],
    patients_N: npt.NDArray[np.str_],
    min_patients: int,
    most_terms: int = sys.maxsize,
) -> CountedNotes:
    """Count the words and pairs of some notes; a term of fewer notes than patients is left out."""
    counter = CountVectorizer(
        ngram_range=_WORDS_AND_PAIRS, dtype=np.int32, token_pattern=_WORD_WITH_MARKS
    )
    try:
        counts_NV = counter.fit_transform(texts)
    except ValueError:  # no note has a word
        empty = scipy.sparse.csr_matrix((len(texts), 0), dtype=np.int32)
        return CountedNotes(patients_N, np.array([], object), empty, min_patients, most_terms)
    notes_V = np.bincount(counts_NV.indices, minlength=counts_NV.shape[1])
    kept_V = np.flatnonzero(notes_V >= min_patients)
    terms_V = counter.get_feature_names_out()[kept_V]
    return CountedNotes(patients_N, terms_V, counts_NV[:, kept_V], min_patients, most_terms)


def _weighted(counts_NV: Any, idf_V: npt.NDArray[np.float64]) -> Any:
    weighted_NV = scipy.sparse.csr_matrix(counts_NV, dtype=np.float64)
    weighted_NV.data = (1 + np.log(weighted_NV.data)) * idf_V[weighted_NV.indices]
    if weighted_NV.nnz:
        weighted_NV = normalize(weighted_NV, copy=False)
    return weighted_NV.astype(np.float32)
