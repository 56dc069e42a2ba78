"""The paper's numbers and ours: compared, judged, weighed."""
