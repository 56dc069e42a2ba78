"""`python -m rklu_lib` is `rklu`: what `accelerate launch -m` and `torchrun -m` start."""

from rklu_lib.cli import app

app(prog_name="rklu")
