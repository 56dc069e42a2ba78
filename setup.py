"""What pyproject.toml cannot say: the embedded data, `data/` in a checkout, are `rklu_lib/embedded` in a wheel."""

from setuptools import find_packages, setup

EMBEDDED = ("", ".capability", ".fictional", ".paper", ".passages")  # the records stay behind: they are 13 MB

setup(
    packages=[*find_packages(include=["rklu_lib*", "rklu_pages*"]), *(f"rklu_lib.embedded{name}" for name in EMBEDDED)],
    package_dir={f"rklu_lib.embedded{name}": f"data{name.replace('.', '/')}" for name in EMBEDDED},
)
