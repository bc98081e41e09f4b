"""TF-IDF of words and pairs of words, of those only that many patients' notes share.

Shapes: N notes, V terms, P patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

_WORDS_AND_PAIRS = (1, 2)


@dataclass(frozen=True)
class Words:
    """V words and pairs of words, lower case, and their inverse document frequencies."""

    terms: tuple[str, ...]
    idf_V: npt.NDArray[np.float64]

    def features(self, texts: Sequence[str]) -> Any:
        """`(N, V)` sparse float32 TF-IDF of texts; that of a text is its own."""
        if not self.terms:
            return scipy.sparse.csr_matrix((len(texts), 0), dtype=np.float32)
        counter = CountVectorizer(
            ngram_range=_WORDS_AND_PAIRS, vocabulary=self.terms, dtype=np.int32
        )
        return _weighted(counter.transform(texts), self.idf_V)


@dataclass(frozen=True)
class CountedNotes:
    """Notes with the sparse counts of every term that `min_patients` patients might share."""

    patients_N: npt.NDArray[np.str_]
    terms_V: npt.NDArray[np.str_]
    counts_NV: Any
    min_patients: int

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
        patients_V = (of_patient_PN @ is_there_NV).astype(bool).sum(0)
        is_shared_V = np.asarray(patients_V).ravel() >= self.min_patients
        notes_V = np.asarray(is_there_NV.sum(0)).ravel()[is_shared_V]
        idf_V = np.log((1 + notes) / (1 + notes_V)) + 1
        words = Words(tuple(self.terms_V[is_shared_V].tolist()), idf_V)
        return words, _weighted(counts_NV[:, is_shared_V], idf_V)


def count_terms(
    texts: Sequence[str], patients_N: npt.NDArray[np.str_], min_patients: int
) -> CountedNotes:
    """Count the words and pairs of some notes; a term of fewer notes than patients is left out."""
    counter = CountVectorizer(ngram_range=_WORDS_AND_PAIRS, dtype=np.int32)
    try:
        counts_NV = counter.fit_transform(texts)
    except ValueError:  # no note has a word
        empty = scipy.sparse.csr_matrix((len(texts), 0), dtype=np.int32)
        return CountedNotes(patients_N, np.array([], np.str_), empty, min_patients)
    notes_V = np.bincount(counts_NV.indices, minlength=counts_NV.shape[1])
    kept_V = np.flatnonzero(notes_V >= min_patients)
    # All terms as one array of strings would take the width of the longest for each.
    terms_V = np.array(counter.get_feature_names_out()[kept_V].tolist(), np.str_)
    return CountedNotes(patients_N, terms_V, counts_NV[:, kept_V], min_patients)


def _weighted(counts_NV: Any, idf_V: npt.NDArray[np.float64]) -> Any:
    weighted_NV = scipy.sparse.csr_matrix(counts_NV, dtype=np.float64)
    weighted_NV.data = (1 + np.log(weighted_NV.data)) * idf_V[weighted_NV.indices]
    if weighted_NV.nnz:
        weighted_NV = normalize(weighted_NV, copy=False)
    return weighted_NV.astype(np.float32)
