"""Files of the Hugging Face Hub, by way of its cache; where it cannot be reached, one sentence at once."""

import re
from collections.abc import Sequence
from pathlib import Path

PREFIX, LOCAL = "hf-hub:", "local-dir:"
"""timm's words for a repository and for a folder."""
FILES = (".ckpt", ".pt", ".pth", ".safetensors")


def is_prefixed(name: str | Path) -> bool:
    """Whether the name says by one of timm's words what it is."""
    return (name if isinstance(name, str) else name.as_posix()).startswith((PREFIX, LOCAL))


def repository_of(path: Path) -> str | None:
    """The "org/name" or "org/name@revision" that stands in place of a folder.

    What lies in a folder that there is, or ends like a file, is a path that was mistyped.
    """
    name = path.as_posix()
    plain = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", name) and not name.endswith(FILES)
    return name if plain and not path.parent.exists() else None


def fetch_folder(name: str, files: Sequence[str]) -> Path:
    """The folder of the cache that holds these files of a repository; errors as of `fetch`."""
    *_, path = [fetch(name, file) for file in files]
    return path.parent


def push_folder(
    folder: Path, repository: str, *, message: str, private: bool | None, branch: str | None, token: str | None
) -> str:
    """Uploads a folder into a repository, which is made if there is none; its README.md stays if it has one.

    Returns:
        the address of the commit.

    Raises:
        ConnectionError: the Hub cannot be reached.
        PermissionError: not signed in, or not allowed to write there.
        ValueError: no name of a repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if branch is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        kept = ["README.md"] if api.file_exists(repository, "README.md", revision=branch) else None
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, revision=branch, ignore_patterns=kept
        )
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is no name of a repository of the Hub: {error}") from error
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        answer = getattr(error, "response", None)
        if answer is None or answer.status_code in (401, 403):
            raise PermissionError(
                f"the Hub does not let you write to {repository}: sign in with `hf auth login`, or give token="
            ) from error
        raise ConnectionError(f"{ENDPOINT} does not take {repository} ({_reason(error)}); try again later") from error
    except Exception as error:  # of the client beneath
        raise ConnectionError(f"{ENDPOINT} cannot be reached ({_reason(error)}): nothing was uploaded") from error
    return str(commit.commit_url)


def split_revision(name: str) -> tuple[str, str | None]:
    """Repository and revision of "org/name@revision", as timm writes it."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def fetch(name: str, file: str) -> Path:
    """A file of a repository, from the cache or downloaded into it.

    Args:
        name: "org/name" or "org/name@revision".
        file: its path in the repository.

    Raises:
        ConnectionError: not in the cache, and the Hub cannot be reached.
        FileNotFoundError: no such repository, revision or file, or a private one.
    """
    from huggingface_hub import hf_hub_download

    check_reachable(name, [file])
    repository, revision = split_revision(name)
    return Path(hf_hub_download(repository, file, revision=revision))


def check_reachable(name: str, files: Sequence[str]) -> None:
    """Asks once for the first of the files, unless one of them is in the cache; the Hub's own client asks for a minute.

    Args:
        name: "org/name" or "org/name@revision".
        files: of which one is enough.

    Raises:
        ConnectionError: the Hub cannot be reached.
        FileNotFoundError: no such repository or revision, or where there is one file, no such file.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    repository, revision = split_revision(name)
    try:
        if any(isinstance(try_to_load_from_cache(repository, file, revision=revision), str) for file in files):
            return
        get_hf_file_metadata(hf_hub_url(repository, files[0], revision=revision))
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is no name of a repository of the Hub: {error}") from error
    except EntryNotFoundError as error:
        if len(files) == 1:
            raise FileNotFoundError(f"{name} of the Hub holds no {files[0]}") from error
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code not in (401, 403, 404):
            raise ConnectionError(
                f"{ENDPOINT} does not answer for {name} ({_reason(error)}); try again later"
            ) from error
        raise FileNotFoundError(
            f"the Hub has no {name}, or not for you: check the name, or sign in with `hf auth login` if it is private"
        ) from error
    except Exception as error:  # of the client beneath, which is requests, httpx or httpx2 by the Hub's version
        raise ConnectionError(
            f"{name} is not in the cache, and {ENDPOINT} cannot be reached ({_reason(error)}): connect once, or give a "
            "local file or folder"
        ) from error


def _reason(error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else (str(error).strip() or type(error).__name__).splitlines()[0]
