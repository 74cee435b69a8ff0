"""A stub of the Hugging Face Hub that keeps its repositories in a folder."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError


def answer(status: int) -> RepositoryNotFoundError:
    return RepositoryNotFoundError("no", response=SimpleNamespace(status_code=status, headers={}, request=None))  # type: ignore[arg-type]


def stub(monkeypatch: pytest.MonkeyPatch, root: Path, *, accepted: str | None) -> Path:
    """Puts a folder, whose subfolders org/name are its repositories, in place of the Hub; it lets in by this token."""

    class Api:
        def __init__(self, token: str | None = None) -> None:
            self.token = token

        def create_repo(self, name: str, *, private: bool | None, exist_ok: bool) -> None:  # noqa: ARG002
            if self.token != accepted:
                raise answer(401)
            (root / name).mkdir(parents=True, exist_ok=exist_ok)

        def create_branch(self, name: str, *, branch: str, exist_ok: bool) -> None:
            (root / f"{name}@{branch}").mkdir(exist_ok=exist_ok)

        def file_exists(self, name: str, file: str, *, revision: str | None) -> bool:
            return (root / (f"{name}@{revision}" if revision else name) / file).exists()

        def upload_folder(self, **given: Any) -> SimpleNamespace:
            name = given["repo_id"] + (f"@{given['revision']}" if given["revision"] else "")
            for path in Path(given["folder_path"]).iterdir():
                if path.name not in (given["ignore_patterns"] or []):
                    shutil.copy(path, root / name / path.name)
            return SimpleNamespace(commit_url=f"https://hub/{name}/commit/1")

    def find(name: str, file: str, revision: str | None = None) -> str:
        return str(root / (f"{name}@{revision}" if revision else name) / file)

    def head(path: str) -> None:
        if not Path(path).is_file():
            raise answer(404)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", find)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", head)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", find)
    return root
