"""Register the marker `gpu`, for a pytest that runs without this project's settings."""


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "gpu: what a GPU computes, held against the CPU (elsewhere: the CPU against itself)"
    )
