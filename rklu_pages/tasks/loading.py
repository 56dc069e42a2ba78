"""Load a page's models, and train those that are missing."""

from rklu_lib import execution, models, runs
from rklu_lib.teacher import TeacherModel


def parts(spec):
    """Return the specs of the checkpoints that a model is read from: its own, or the teacher's two models."""
    return [spec.base("original"), spec.base("augmented")] if spec.method == "teacher" else [spec]


def _read_model(spec):
    read = [models.load(part.model_path, spec.values.dtype)[0] for part in parts(spec)]
    return TeacherModel(*read, spec.values.alpha, spec.values.gauge) if spec.method == "teacher" else read[0]


def ensure(specs):
    """Train the models that these specs are read from, with their bases, where a checkpoint is missing."""
    needed = dict.fromkeys(part for spec in specs for part in parts(spec))
    runs.ensure([spec for spec in needed if not execution.has_checkpoint(spec)], checkpoints=True)


def load_models(profile, split, labels, seed=0):
    """Return {label: model} after the last epoch, and the tokenizer. Missing models and their bases are trained."""
    specs = {label: runs.named(profile, split, label, seed) for label in labels}
    ensure(specs.values())
    original = runs.named(profile, split, "original", seed).model_path
    return {label: _read_model(spec) for label, spec in specs.items()}, models.load_tokenizer(original)
