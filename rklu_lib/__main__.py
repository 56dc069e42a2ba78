"""Run the command `rklu` as `python -m rklu_lib`, which `accelerate launch -m` and `torchrun -m` also do."""

from rklu_lib.cli import app

app(prog_name="rklu")
