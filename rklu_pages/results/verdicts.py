"""The possible verdicts on a claim, in the order of the tables; `claims.decide` defines them."""

HOLDS, IN_PART, UNDECIDED, FAILS, UNTESTED = VERDICTS = (
    "holds",
    "holds in part",
    "not told apart",
    "does not hold",
    "not tested",
)


def counted(columns):
    """Count how often each verdict occurs in each column of a DataFrame of verdicts."""
    counts = columns.apply(lambda column: column.value_counts()).reindex(VERDICTS)
    return counts.fillna(0).astype(int).rename_axis("verdict")
