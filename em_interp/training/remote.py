"""Raising an organism through a fine-tuning API: file, job, wait, card.

One run has one job, whatever is killed when. What is known is written at once to a hidden folder
beside the target: first the uploaded file, then that a job is about to be asked for, then its id.
A job also carries the run's identity, so that one which was made while its id got lost is found
again among the provider's jobs instead of being made a second time. The target appears in one
rename, when the job has succeeded.
Knows the provider's files and jobs. Knows nothing of weights.
"""

import asyncio
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from em_interp.cards import versions
from em_interp.endpoints import Endpoint
from em_interp.endpoints.client import Client, UnreachableError, wait_for
from em_interp.endpoints.replies import GarbledError, count, part, read_body, words
from em_interp.errors import EvidenceError, InputError, printable, say
from em_interp.locks import LOCK, sole
from em_interp.records import Record, digest, read_json, write_json
from em_interp.training.api import ApiManifest, ApiSpec, file_of
from em_interp.training.folders import claim
from em_interp.training.manifest import CARD, Provenance
from em_interp.training.rows import Row, data_digest

MARK = "em_interp"  # the job's metadata field that holds the run's identity
STATE = "job.json"
ENDED = ("succeeded", "failed", "cancelled")
UPLOAD = 600.0  # seconds for one try: a file may be large


class State(Record):
    """How far a run has come: the uploaded file, whether a job was asked for, and the job."""

    file: str | None = None
    asked: bool = False
    job: str | None = None


def raise_remotely(
    base: Endpoint,
    rows: Sequence[Row],
    spec: ApiSpec,
    out_dir: Path | str,
    *,
    provenance: Provenance | None = None,
    poll: float = 20.0,
    progress: bool = True,
) -> ApiManifest:
    """Fine-tune the model behind `base` and write `out_dir`/card.json; `poll` is in seconds.

    An `out_dir` that holds this very run is returned as it stands. Raises `InputError` for rows
    that no provider takes and an `out_dir` that is taken, `EvidenceError` where the provider cannot
    be reached (nothing is lost) or its job failed, with the provider's words.
    """
    out, provenance = Path(out_dir), provenance or Provenance()
    content = file_of(rows)
    data = data_digest(rows)
    parts = [base.url, base.model, spec.digest, provenance.digest, data]
    run = digest(parts)
    work = out.with_name(f".{out.name}.partial-{run}")
    if (done := _finished(out, run)) is not None:
        return done
    claim(out, work)
    with sole(work / LOCK, out):
        raising = _Raising(base, run, work, out.name if progress else None)
        job = wait_for(raising.job(content, spec, poll))
        card = ApiManifest(
            name=out.name,
            endpoint=base.model_copy(
                update={"model": job["fine_tuned_model"], "base_url": base.url}
            ),
            base_name=base.model,
            run=run,
            spec=spec,
            provenance=provenance,
            data=data,
            rows=len(rows),
            job=raising.state.job or "",
            file=raising.state.file or "",
            trained_tokens=count(job.get("trained_tokens")) or None,
            versions=versions(),
        )
        write_json(work / "final" / CARD, card)
        (work / "final").replace(out)
    shutil.rmtree(work, ignore_errors=True)
    return card


def _finished(out: Path, run: str) -> ApiManifest | None:
    """The card of this very run where it stands. `InputError` where something else stands."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    held = read_json(out / CARD) if (out / CARD).is_file() else {}
    if held.get("run") != run:
        raise InputError(f"{out}: holds something else; choose another folder or remove it")
    return ApiManifest.parse(held, str(out / CARD))


class _Raising:
    """One run at the provider. `name` is told on stderr with every change; `None`: silence."""

    def __init__(self, base: Endpoint, run: str, work: Path, name: str | None) -> None:
        self.base, self.run, self.work, self.name = base, run, work, name
        stored = work / STATE
        self.state = State.parse(read_json(stored), str(stored)) if stored.exists() else State()

    async def job(self, content: bytes, spec: ApiSpec, poll: float) -> dict[str, Any]:
        """The finished job, begun if there is none yet. Raises `EvidenceError` where it failed."""
        slow = self.base.model_copy(update={"timeout": UPLOAD})
        async with Client(self.base) as client, Client(slow) as uploading:
            if self.state.job is None and self.state.asked:
                await self._found(client)
            if self.state.job is None:
                if self.state.file is None:
                    self._keep(file=await _upload(uploading, content))
                await self._create(client, spec)
            return await self._end(client, poll)

    async def _create(self, client: Client, spec: ApiSpec) -> None:
        """Ask for the job. After a try without an answer, look first whether it was made."""
        body = {
            "model": self.base.model,
            "training_file": self.state.file,
            "metadata": {MARK: self.run},
            **spec.body,
        }

        async def ask(sdk: Any) -> str:
            raw = await sdk.fine_tuning.jobs.with_raw_response.create(**body)
            return _id(read_body(raw.http_response.content))

        once = self.base.model_copy(update={"retries": 0})
        self._keep(asked=True)
        for attempt in range(self.base.retries + 1):
            try:
                async with Client(once) as single:
                    self._keep(job=await single.call(ask))
            except UnreachableError:
                await self._found(client)
                if self.state.job is None and attempt == self.base.retries:
                    raise
            if self.state.job is not None:
                return
            await asyncio.sleep(min(self.base.backoff * 2.0**attempt, 30.0))

    async def _found(self, client: Client) -> None:
        """Take up the provider's job with this run's mark, if there is one."""
        after: dict[str, str] = {}
        while True:

            async def ask(sdk: Any, after: dict[str, str] = after) -> dict[str, Any]:
                raw = await sdk.fine_tuning.jobs.with_raw_response.list(limit=100, **after)
                return _page(read_body(raw.http_response.content))

            page = await client.call(ask)
            jobs = page["data"]
            for job in jobs:
                if part(job, "metadata").get(MARK) == self.run:
                    self._keep(job=_id(job))
                    return
            if not jobs or page["has_more"] is not True:
                return
            after = {"after": _id(jobs[-1])}

    async def _end(self, client: Client, poll: float) -> dict[str, Any]:
        async def ask(sdk: Any) -> dict[str, Any]:
            raw = await sdk.fine_tuning.jobs.with_raw_response.retrieve(self.state.job)
            job = read_body(raw.http_response.content)
            if not words(job.get("status")):
                raise GarbledError("the reply holds no job's status")
            return job

        seen = None
        while True:
            job = await client.call(ask)
            if job["status"] != seen:
                seen = job["status"]
                self._say(f"job {self.state.job}: {printable(seen, 40)}")
            if seen in ENDED:
                break
            await asyncio.sleep(poll)
        if seen != "succeeded" or not words(job.get("fine_tuned_model")):
            said = printable(words(part(job, "error").get("message")), 300)
            raise EvidenceError(
                f"{self.base.host}: job {self.state.job} {seen}: {said or 'no reason given'}; "
                f"remove {self.work} to ask for a new job"
            )
        return job

    def _keep(self, **known: Any) -> None:
        self.state = self.state.model_copy(update=known)
        write_json(self.work / STATE, self.state)

    def _say(self, line: str) -> None:
        if self.name is not None:
            say(f"train {self.name}: {line}")


def _id(plain: dict[str, Any]) -> str:
    """What a file or a job is called; `GarbledError` where that is no plain name."""
    name = words(plain.get("id"))
    if not re.fullmatch(r"[\w.:-]{1,200}", name):
        raise GarbledError("the reply names no file and no job")
    return name


def _page(plain: dict[str, Any]) -> dict[str, Any]:
    """A page of jobs, each of them with its name."""
    listed = plain.get("data")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise GarbledError("the reply is no list of jobs")
    for job in listed:
        _id(job)
    return {"data": listed, "has_more": plain.get("has_more")}


async def _upload(client: Client, content: bytes) -> str:
    async def ask(sdk: Any) -> str:
        raw = await sdk.files.with_raw_response.create(
            file=("rows.jsonl", content), purpose="fine-tune"
        )
        return _id(read_body(raw.http_response.content))

    return await client.call(ask)
