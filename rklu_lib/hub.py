"""Access to the Hugging Face hub. Without a network, cached files are used and others are refused at once."""

import functools

from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache

SECONDS = 5  # to wait for an answer of the hub; the libraries themselves try for a minute


@functools.cache
def reachable():
    """Return whether the hub answers (asked once per process). If not, set huggingface_hub to use only its cache."""
    if not constants.HF_HUB_OFFLINE:
        try:
            get_session().head(constants.ENDPOINT, timeout=SECONDS)  # with the library's own proxies and certificates
            return True  # the hub answers, even if it refuses
        except Exception:  # of requests, httpx or httpx2, by huggingface_hub's version
            constants.HF_HUB_OFFLINE = True
    return False


def dataset(name, *config, split, fix):
    """Load a split of a data set (None: all splits). Raises FileNotFoundError, with the fix, without hub or cache."""
    import datasets

    datasets.config.HF_HUB_OFFLINE = not reachable()
    try:
        return datasets.load_dataset(name, *config, split=split)
    except ConnectionError:
        raise FileNotFoundError(f"{name} is not cached, and the hub cannot be reached; {fix}") from None


def file(name, path, fix):
    """Return the local path of a data set's file, downloaded if needed. Raises FileNotFoundError, with the fix."""
    try:
        return hf_hub_download(name, path, repo_type="dataset", local_files_only=not reachable())
    except OSError:  # the file does not exist, or is not cached and there is no network
        raise FileNotFoundError(f"{path} of {name} is neither cached nor on a hub within reach; {fix}") from None


def cached(model):
    """Return whether a model, or an adapter, is in the hub's cache."""
    return any(try_to_load_from_cache(model, f) for f in ("config.json", "adapter_config.json"))


def check(model, fix):
    """Raise FileNotFoundError, with the fix, if the hub cannot be reached and the model is not in the hub's cache."""
    if not reachable() and not cached(model):
        raise FileNotFoundError(f"{model} is not cached, and the hub cannot be reached; {fix}")
