#!/usr/bin/env bash
# statsmodels 0.15.0: `save(remove_data=True)` of a formula's model writes every row, unused columns included.
#
# Expected: "all instances of nobs arrays are removed", as without a formula, where nothing is left. Found: with
# a formula (OLS, Logit and GLM alike) the file holds the whole data frame, so the names in a column that the
# formula does not mention, and the two matrices made of it.
#
# Seen: of 50 names in an unused column 50 in the file, and one person's value twice; without a formula 0 and 0.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q statsmodels==0.15.0 pandas==3.1.1 scipy==1.17.1 numpy==2.4.6 formulaic==1.2.2
"$there/v/bin/python" - "$there/model.pickle" <<'PY'
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels
import statsmodels.api as sm
import statsmodels.formula.api as smf

print("statsmodels", statsmodels.__version__)
draw = np.random.default_rng(0)
rows = pd.DataFrame({"y": draw.integers(0, 2, 50).astype(float), "x": draw.random(50)})
rows["name"] = [f"person-{number:02d}" for number in range(50)]
mark = np.float64(rows.x[7]).tobytes()

models = {
    "OLS": sm.OLS(rows.y, sm.add_constant(rows[["x"]])),
    "OLS, formula": smf.ols("y ~ x", rows),
    "Logit, formula": smf.logit("y ~ x", rows),
    "GLM, formula": smf.glm("y ~ x", rows, family=sm.families.Binomial()),
}
for kind, model in models.items():
    fitted = model.fit(disp=0) if "Logit" in kind else model.fit()
    fitted.save(sys.argv[1], remove_data=True)
    kept = Path(sys.argv[1]).read_bytes()
    names = sum(name.encode() in kept for name in rows.name)
    print(f"{kind}: {names} of 50 names, {kept.count(mark)} times the value of one person")
    assert (names, kept.count(mark)) == ((50, 2) if "formula" in kind else (0, 0))
PY
