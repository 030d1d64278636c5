"""One file at a time from the Hugging Face hub: resumed if the connection breaks, checked against the hub's size and hash."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fairway.base.errors import DataError, MachineError
from fairway.base.files import sha256_file

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubRepository:
    """A data set repository at one commit."""

    name: str
    """``owner/name`` on the hub."""
    commit: str
    """Full commit hash, so that all files belong together."""
    endpoint: str | None
    """Address of the hub; None is the public one."""


@dataclass(frozen=True)
class HubFile:
    """What the hub says about one file."""

    path: str
    size: int
    sha256: str | None
    """SHA-256 of large files; None for small ones, which the hub does not hash this way."""


def resolve(name: str, revision: str, path: str, endpoint: str | None) -> HubRepository:
    """Turn a branch or tag into the commit it points to, by asking for one file that must exist.

    Raises:
        DataError: no such repository, revision or file.
        MachineError: the hub cannot be reached.
    """
    commit = _metadata(name, revision, path, endpoint).commit_hash
    if not commit:
        raise MachineError(f"the hub named no commit for {name} at {revision}; check the endpoint {endpoint or 'of the hub'}")
    return HubRepository(name, commit, endpoint)


def look_up(repository: HubRepository, path: str) -> HubFile:
    """Size and hash of one file.

    Raises:
        DataError: the file does not exist.
        MachineError: the hub cannot be reached, or does not say how large the file is.
    """
    found = _metadata(repository.name, repository.commit, path, repository.endpoint)
    if found.size is None:
        raise MachineError(f"the hub gave no size for {repository.name}/{path}; try again later")
    etag = found.etag or ""
    return HubFile(path, found.size, etag if _SHA256.fullmatch(etag) else None)


def download(repository: HubRepository, file: HubFile, staging: Path) -> Path:
    """Download one file below ``staging`` and check size and hash; a broken connection goes on inside the file.

    Raises:
        DataError: the file does not exist, or its content differs from the hub's hash; the bad copy is removed.
        MachineError: the hub cannot be reached, or the disk is full.
    """
    from huggingface_hub import hf_hub_download

    with _explained(repository.name, file.path, repository.endpoint):
        name = hf_hub_download(
            repository.name,
            file.path,
            repo_type="dataset",
            revision=repository.commit,
            local_dir=staging,
            endpoint=repository.endpoint,
            token=False,
        )
    path = Path(name)
    size = path.stat().st_size
    found = sha256_file(path) if file.sha256 and size == file.size else None
    if size != file.size or found != file.sha256:
        path.unlink()
        wrong = f"{size} bytes instead of {file.size}" if size != file.size else f"SHA-256 {found} instead of {file.sha256}"
        raise DataError(f"{repository.name}/{file.path} arrived with {wrong}; the copy was removed, fetch again")
    return path


def _metadata(name: str, revision: str, path: str, endpoint: str | None):
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with _explained(name, path, endpoint):
        url = hf_hub_url(name, path, repo_type="dataset", revision=revision, endpoint=endpoint)
        return get_hf_file_metadata(url, token=False)


@contextmanager
def _explained(name: str, path: str, endpoint: str | None) -> Iterator[None]:
    """Turn the hub client's errors into ours: what is not there is bad input, what cannot be reached is the machine."""
    from huggingface_hub import errors

    # Both HTTP clients the hub library has used put their base error first among the bases of this class.
    http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    place = endpoint or "https://huggingface.co"
    try:
        yield
    except errors.GatedRepoError:
        raise DataError(f"data set {name} on {place} needs an account; fetch another variant") from None
    except errors.RevisionNotFoundError:
        raise DataError(f"data set {name} on {place} has no such revision; leave the revision out for main") from None
    except errors.RepositoryNotFoundError:
        raise DataError(f"data set {name} does not exist on {place}; check the variant and the endpoint") from None
    except errors.LocalEntryNotFoundError:
        raise MachineError(f"{place} cannot be reached for {name}/{path}; check the network, finished files are kept") from None
    except errors.EntryNotFoundError:
        raise DataError(f"data set {name} on {place} has no file {path}; this variant is incomplete there") from None
    except errors.HFValidationError as error:
        raise DataError(f"{name!r} is not a hub repository ({error})") from None
    except (http_error, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MachineError(
            f"{name}/{path} could not be fetched from {place} ({reason}); fetch again, finished files are kept"
        ) from None
