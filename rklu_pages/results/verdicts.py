"""What can be said of a claim, in the order in which it is counted; `claims.decide` says when which."""

HOLDS, IN_PART, UNDECIDED, FAILS, UNTESTED = VERDICTS = (
    "holds",
    "holds in part",
    "not told apart",
    "does not hold",
    "not tested",
)


def counted(columns):
    """How often each verdict stands in each column of a DataFrame of verdicts."""
    counts = columns.apply(lambda column: column.value_counts()).reindex(VERDICTS)
    return counts.fillna(0).astype(int).rename_axis("verdict")
