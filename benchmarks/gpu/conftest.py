"""The marker of what is asked of a GPU, for a pytest that is not given this project's settings."""


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "gpu: what a GPU computes, held against the CPU (elsewhere: the CPU against itself)"
    )
