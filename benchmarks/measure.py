"""Shared by the benchmarks: time and peak memory of a step, one process per case, ratios, one JSON per benchmark."""

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from rklu_lib import records

RESULTS = Path(__file__).parent / "results"


def measured(step, repeats):
    """Return {"seconds": median of `repeats`, "cpu_seconds": median processor time of all threads, "extra_mib": peak
    memory above the level before, in MiB, "value": what the step returns}.

    The first step warms up and is not timed. The peak includes it. On a GPU both memory levels come from CUDA.
    """
    cuda = torch.cuda.is_available()
    before = torch.cuda.memory_allocated() / 2**20 if cuda else resident()
    value, seconds, processor = step(), [], []
    for _ in range(repeats):
        started, busy = time.perf_counter(), time.process_time()
        value = step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - busy)
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    )
    times = {"seconds": statistics.median(seconds), "cpu_seconds": statistics.median(processor)}
    return times | {"extra_mib": peak - before, "value": value}


def resident():
    """Return the memory that this process holds now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def write(name, script, cases):
    """Run all cases, {case: {form: arguments}}, one process after another; print and store results and ratios. Speed
    is the first form's seconds over another form's; memory is the other form's over the first form's."""
    results = {}
    for case, forms in cases.items():
        results[case] = {}
        for form, arguments in forms.items():
            run = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
            if run.returncode:
                raise SystemExit(f"{script} {' '.join(arguments)} failed:\n{run.stderr}")
            results[case][form] = json.loads(run.stdout.splitlines()[-1])
        first, *others = forms
        base = results[case][first]
        for form in others:
            other = results[case][form]
            other["times_faster"] = base["seconds"] / other["seconds"]
            other["cpu_times_faster"] = base["cpu_seconds"] / other["cpu_seconds"]
            other["memory_ratio"] = other["extra_mib"] / base["extra_mib"]
            print(
                f"{name}, {case}: {form} {other['times_faster']:.2f} times as fast as {first} "
                f"({other['cpu_times_faster']:.2f} by the processor's seconds), "
                f"{other['memory_ratio']:.3f} of its extra memory, "
                f"difference of values {abs(other['value'] - base['value']):.1e}"
            )
    content = {"machine": records.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    records.write_json(RESULTS / f"{name}.json", content | {"code": records.code_version(), "results": results})
