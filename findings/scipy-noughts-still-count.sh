#!/usr/bin/env bash
# scipy 1.17.1 with scikit-learn 1.9.1 and implicit 0.7.3: an entry that was set to 0 still counts.
#
# Expected: `table[person, item] = 0` takes the entry out, since the matrix then equals one without it. Found: a
# CSR matrix keeps a place for the 0, and these read places, not values: `TfidfTransformer` counts the document
# that no longer has the word, `MultiLabelBinarizer.inverse_transform` gives the label back, and implicit's
# BayesianPersonalizedRanking learns the erased likes bit for bit as before. `eliminate_zeros()` is what
# removes.
#
# Seen: idf 1.22 against 1.51 without the entry; labels (a, b) where b alone is left; factors equal to those of
# the untouched table in every bit, and other ones after `eliminate_zeros`.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q scipy==1.17.1 scikit-learn==1.9.1 implicit==0.7.3 numpy==2.4.6
OPENBLAS_NUM_THREADS=1 "$there/v/bin/python" -W ignore - <<'PY'
import implicit
import numpy as np
import scipy
import sklearn
from implicit.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import MultiLabelBinarizer

print("scipy", scipy.__version__, "scikit-learn", sklearn.__version__, "implicit", implicit.__version__)


def without(table):
    """The same numbers, none of them a 0 that takes a place."""
    made = table.copy()
    made.eliminate_zeros()
    assert np.array_equal(made.toarray(), table.toarray())
    return made


words = csr_matrix([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
words[0, 0] = 0
idf = [TfidfTransformer().fit(table).idf_[0] for table in (words, without(words))]
print("idf of the word: set to 0", idf[0], "taken out", idf[1])
assert round(idf[0], 3) == 1.223 and round(idf[1], 3) == 1.511

binary = MultiLabelBinarizer(sparse_output=True)
labels = binary.fit_transform([{"a", "b"}, {"a"}])
labels[0, 0] = 0
back = [sorted(binary.inverse_transform(table)[0]) for table in (labels, without(labels))]
print("labels of the first row: set to 0", back[0], "taken out", back[1])
assert back == [["a", "b"], ["b"]]

likes = csr_matrix((np.random.default_rng(0).random((60, 20)) < 0.2).astype(np.float32))
erased = likes.copy()
for item in likes[5].indices:
    erased[5, item] = 0
assert erased[5].sum() == 0


def factors(table):
    model = BayesianPersonalizedRanking(factors=8, random_state=1, num_threads=1)
    model.fit(table, show_progress=False)
    return model.user_factors


learned = factors(likes)
same = [np.array_equal(learned, factors(table)) for table in (erased, without(erased))]
print("model equals that of the untouched table: set to 0", same[0], "taken out", same[1])
assert same == [True, False]
PY
