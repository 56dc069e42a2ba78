"""rklu: reverse-KL unlearning for language models, the executable companion of the NAACL 2025 paper."""

__version__ = "0.1.0"
__all__ = ["__version__", "unlearn"]


def __dir__():
    return sorted({*globals(), *__all__})  # with what is imported on demand, so that it can be completed


def __getattr__(name):
    if name == "unlearn":  # imported on demand, so that importing the package stays fast
        from rklu_lib.own.unlearning import unlearn

        return unlearn
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
