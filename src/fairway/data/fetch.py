"""Download a published export: driven by its manifest, each file checked before it is put in place, resumable."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from fairway.base.errors import DataError
from fairway.base.files import read_json, sha256_file, write_json
from fairway.base.values import suggest
from fairway.data.dataset import FETCH_RECORD, Dataset
from fairway.data.hub import HubRepository, download, look_up, resolve
from fairway.data.manifest import MANIFEST
from fairway.data.published import PublishedExport, parse_export
from fairway.data.shards import read_header, shard_name
from fairway.data.tokenizer import Tokenizer

_STAGING = ".fetch"
_PREFIX = "fineweb_"


@dataclass(frozen=True)
class Variant:
    """Where a published export lies on the hub."""

    repository: str
    """Data set repository, ``owner/name``."""
    name: str
    """Name of the export in the repository's manifest."""
    root: str = "datasets"
    """Folder of the manifest inside the repository."""


VARIANTS: dict[str, Variant] = {
    "sp1024": Variant("willdepueoai/parameter-golf", "fineweb10B_sp1024"),
    "sp8192": Variant("kevclark/parameter-golf", "fineweb10B_sp8192"),
    "sp8192-caseops": Variant("romeerp/parameter-golf-caseops-v1", "fineweb10B_sp8192_lossless_caps_caseops_v1_reserved"),
    "sp8192-pr1776": Variant("LightSpeedUp/parameter-golf-data", "fineweb10B_sp8192"),
}
"""Published exports by the names that recipes use."""


@dataclass(frozen=True)
class FetchReport:
    """What `fetch` brought."""

    out: Path
    variant: str
    repository: str
    commit: str
    files: int
    """Files that belong to the request, downloaded or already there."""
    downloaded_files: int
    downloaded_bytes: int
    train_shards: int
    fingerprint: str
    seconds: float


def fetch(
    variant: str,
    out: Path,
    *,
    train_shards: int = 80,
    revision: str = "main",
    endpoint: str | None = None,
    documents: bool = False,
) -> FetchReport:
    """Download a published export and open it once as a check.

    A broken connection goes on inside the file. A second call goes on with the file at which the first stopped, brings
    missing training shards, and leaves checked files alone. The manifest is put in place last, so a folder without one is
    an unfinished download.

    Args:
        variant: A name of `VARIANTS`.
        out: Data folder to make or to complete.
        train_shards: Leading training shards to have; validation always comes in full.
        revision: Branch, tag or commit.
        endpoint: Address of the hub, for a mirror; None is the public one.
        documents: Also bring the list of documents the export was made from (48 GB).

    Raises:
        DataError: unknown variant, more shards than exist, something missing on the hub, a wrong hash, or a folder that
            holds another export.
        MachineError: the hub cannot be reached, or the disk is full.
    """
    began = time.perf_counter()
    if variant not in VARIANTS:
        raise DataError(f"variant {variant!r} is not one of {', '.join(VARIANTS)}{suggest(variant, VARIANTS)}")
    chosen, out = VARIANTS[variant], Path(out)
    repository = resolve(chosen.repository, revision, f"{chosen.root}/{MANIFEST}", endpoint)
    job = _Download(repository, chosen, out)
    manifest = job.manifest()
    export = parse_export(manifest, chosen.name, f"{chosen.repository}/{chosen.root}/{MANIFEST}")
    if not 1 <= train_shards <= export.train_files:
        raise DataError(f"{train_shards} training shards are asked for; {variant} has 1..{export.train_files}")
    wanted = _wanted(export, train_shards)
    if documents:
        wanted |= _document_files(manifest)
    for path, check in tqdm(wanted.items(), desc=f"fetch {variant}", unit=" files", disable=None, leave=False):
        job.bring(path, check)
    job.finish()
    dataset = Dataset.open(out, name=export.name)
    return FetchReport(
        out=out,
        variant=variant,
        repository=repository.name,
        commit=repository.commit,
        files=len(wanted) + 1,
        downloaded_files=job.downloaded_files,
        downloaded_bytes=job.downloaded_bytes,
        train_shards=len(dataset.train_shards()),
        fingerprint=dataset.fingerprint,
        seconds=time.perf_counter() - began,
    )


Check = Callable[[Path], object]


def _wanted(export: PublishedExport, train_shards: int) -> dict[str, Check]:
    """Files of the request by path inside the data folder, each with its own check of content."""

    def check_tokenizer(path: Path) -> None:
        pieces = Tokenizer.load(path).vocab_size
        if pieces != export.vocab_size:
            raise DataError(f"{path} has {pieces} pieces, the manifest says {export.vocab_size}")

    files: dict[str, Check] = {export.tokenizer_path: check_tokenizer}
    for index in range(export.val_files):
        files[f"{export.folder}/{shard_name('val', index, prefix=_PREFIX)}"] = read_header
        if export.sidecars:
            files[f"{export.folder}/{shard_name('val', index, sidecar=True, prefix=_PREFIX)}"] = read_header
    for index in range(train_shards):
        files[f"{export.folder}/{shard_name('train', index, prefix=_PREFIX)}"] = read_header
    return files


def _document_files(manifest: dict[str, Any]) -> dict[str, Check]:
    names = (
        manifest.get("docs_jsonl") or "docs_selected.jsonl",
        manifest.get("docs_meta") or "docs_selected.source_manifest.json",
    )
    return {PurePosixPath(str(name)).name: lambda path: None for name in names}


class _Download:
    """The state of one download: a staging folder, a record of finished files, and the counts."""

    def __init__(self, repository: HubRepository, variant: Variant, out: Path) -> None:
        self._repository, self._variant, self._out = repository, variant, out
        self._staging = out / _STAGING
        self._record = self._read_record()
        self.downloaded_files = self.downloaded_bytes = 0

    def _read_record(self) -> dict[str, Any]:
        fresh = {
            "repository": self._repository.name,
            "export": self._variant.name,
            "commit": self._repository.commit,
            "files": {},
        }
        path = self._out / FETCH_RECORD
        if not path.is_file():
            if self._out.is_dir() and any(entry.name != _STAGING for entry in self._out.iterdir()):
                raise DataError(f"{self._out} holds files that were not downloaded by fairway; choose another --out")
            return fresh
        record = read_json(path)
        if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
            raise DataError(f"{path} is damaged; choose another --out")
        for key in ("repository", "export"):
            if record.get(key) != fresh[key]:
                raise DataError(f"{self._out} holds {key} {record.get(key)}, not {fresh[key]}; choose another --out")
        return {**record, "commit": fresh["commit"]}

    def manifest(self) -> Any:
        """Download the manifest into the staging folder and read it."""
        file = look_up(self._repository, f"{self._variant.root}/{MANIFEST}")
        return read_json(download(self._repository, file, self._staging))

    def bring(self, name: str, check: Check) -> None:
        """Have one file of the export in place, downloaded only if what is there is not the hub's."""
        target = self._out / name
        file = look_up(self._repository, f"{self._variant.root}/{name}")
        known = self._record["files"].get(name)
        same = known is not None and known.get("bytes") == file.size and file.sha256 in (None, known.get("sha256"))
        if same and target.is_file() and target.stat().st_size == file.size:
            return
        staged = download(self._repository, file, self._staging)
        try:
            check(staged)
        except DataError:
            staged.unlink()
            raise
        entry = {"bytes": file.size, "sha256": file.sha256 or sha256_file(staged)}
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)
        self._record["files"][name] = entry
        write_json(self._out / FETCH_RECORD, self._record)
        self.downloaded_files += 1
        self.downloaded_bytes += file.size

    def finish(self) -> None:
        """Put the manifest in place and remove the staging folder."""
        (self._staging / self._variant.root / MANIFEST).replace(self._out / MANIFEST)
        write_json(self._out / FETCH_RECORD, self._record)
        shutil.rmtree(self._staging)
