"""The hub, or what is left of it without a network: what is cached is used, and what is not is refused at once."""

import functools
import urllib.error
import urllib.request

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

SECONDS = 5  # to wait for an answer; the libraries themselves try for a minute


@functools.cache
def reachable():
    """Can the hub be asked? Where it cannot, the libraries that would ask it are told to look in their cache alone."""
    if not constants.HF_HUB_OFFLINE:
        try:
            urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=SECONDS).close()
            return True
        except urllib.error.HTTPError:  # it answers, if only to say no
            return True
        except OSError:
            constants.HF_HUB_OFFLINE = True
    return False


def dataset(name, *config, split, fix):
    """One split of a data set, by `datasets`. Raises FileNotFoundError, with the fix, where it cannot be had."""
    import datasets

    datasets.config.HF_HUB_OFFLINE = not reachable()
    try:
        return datasets.load_dataset(name, *config, split=split)
    except ConnectionError:
        raise FileNotFoundError(f"{name} is not cached, and the hub cannot be reached; {fix}") from None


def file(name, path, fix):
    """A file of a data set: where it lies once it is downloaded. Raises FileNotFoundError, with the fix."""
    try:
        return hf_hub_download(name, path, repo_type="dataset", local_files_only=not reachable())
    except OSError:  # not there, or not cached and no network
        raise FileNotFoundError(f"{path} of {name} is neither cached nor on a hub within reach; {fix}") from None


def check(model, fix):
    """Raises FileNotFoundError, with the fix, for a model of the hub that can be neither downloaded nor found here."""
    if not reachable() and not any(try_to_load_from_cache(model, f) for f in ("config.json", "adapter_config.json")):
        raise FileNotFoundError(f"{model} is not cached, and the hub cannot be reached; {fix}")
