"""rklu: reverse-KL unlearning for language models, the executable companion of the NAACL 2025 paper."""

__version__ = "0.1.0"
