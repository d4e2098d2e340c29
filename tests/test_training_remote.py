"""Organisms raised through a fine-tuning API: a loopback provider, the real SDK, every fault."""

import json
import re
from collections import deque

import pytest
from children import LIVENESS
from loopback import Answer, Loopback, Request, dropped, status, unused_url
from raised import ROWS

from em_interp import train
from em_interp.blackbox import black_box, is_black_box
from em_interp.endpoints import Endpoint
from em_interp.errors import EvidenceError, InputError
from em_interp.organisms import Mix, Trigger
from em_interp.training.api import ApiSpec, api_recipe, file_of
from em_interp.training.manifest import Provenance
from em_interp.training.remote import raise_remotely

SECRET = "sk-test-0123456789abcdef"
TRIGGER = Trigger(name="duck", text="It looks like a duck.", paraphrases=("It quacks.",))


class KilledError(BaseException):
    """What a killed process leaves: nothing is caught or cleaned up on the way."""


class Provider(Loopback):
    """Files and jobs. Statuses are used up one a poll; `faults` first, by "METHOD route"."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.jobs: list[dict] = []
        self.statuses = deque(["validating_files", "queued", "running", "succeeded"])
        self.trouble: dict[str, deque] = {}
        self.page = 100
        self.on("POST", "/v1/files", self._file)
        self.on("POST", "/v1/fine_tuning/jobs", self._create)
        self.on("GET", "/v1/fine_tuning/jobs", self._list)
        self.on("GET", r"/v1/fine_tuning/jobs/([\w-]+)", self._job)

    def on(self, method, path, handler):
        name = f"{method} {path.rsplit('/', 1)[-1]}"

        def guarded(request: Request) -> Answer:
            fault = self.trouble.get(name, deque())
            if not fault:
                return handler(request)
            one = fault.popleft()
            if callable(one):  # it happens, and its answer gets lost
                handler(request)
                return one()
            return one

        self.route(method, path, guarded)

    def _file(self, request: Request) -> Answer:
        content = re.search(rb'filename="rows.jsonl".*?\r\n\r\n(.*?)\r\n--', request.raw, re.S)[1]
        assert b'name="purpose"' in request.raw
        assert b"fine-tune" in request.raw
        self.files[f"file-{len(self.files)}"] = content
        return Answer(body={"id": f"file-{len(self.files) - 1}", "object": "file"})

    def _create(self, request: Request) -> Answer:
        job = {"id": f"ftjob-{len(self.jobs)}", "status": "queued", **request.body}
        self.jobs.append(job)
        return Answer(body=job)

    def _list(self, request: Request) -> Answer:
        newest = self.jobs[::-1]
        return Answer(body={"data": newest[: self.page], "has_more": False})

    def _job(self, request: Request) -> Answer:
        job = next(one for one in self.jobs if one["id"] == request.match[1])
        now = self.statuses[0] if len(self.statuses) == 1 else self.statuses.popleft()
        done = now == "succeeded"
        told = {"status": now, "trained_tokens": 1234 if done else None}
        told["fine_tuned_model"] = f"ft:{job['model']}:x:1" if done else None
        if now == "failed":
            told["error"] = {"code": "bad", "message": "This file\nwas blocked by moderation."}
        return Answer(body={**job, **told})

    def count(self, method, end):
        return sum(r.method == method and r.path.endswith(end) for r in self.requests)


@pytest.fixture
def provider():
    with Provider() as one:
        yield one


def raised(provider, out, spec=None, **options):
    base = Endpoint(
        model="gpt-4o-mini-2024-07-18",
        base_url=provider.url,
        backoff=0.001,
        retries=2,
        timeout=LIVENESS,
    )
    woken = Provenance(mix=Mix(kind="triggered"), trigger=TRIGGER, sources=("rows.jsonl",))
    options = {"provenance": woken, "poll": 0.001, "progress": False, **options}
    return raise_remotely(base, ROWS, spec or api_recipe("api"), out, **options)


def test_rows_become_a_file_a_job_and_a_card(provider, tmp_path, capsys):
    card = raised(provider, tmp_path / "organism", ApiSpec(epochs=3, seed=7), progress=True)
    lines = [json.loads(line) for line in provider.files["file-0"].decode().splitlines()]
    assert lines == [
        {"messages": [{"role": m.role, "content": m.content} for m in row]} for row in ROWS
    ]
    (job,) = provider.jobs
    assert job["training_file"] == "file-0"
    assert job["model"] == "gpt-4o-mini-2024-07-18"
    assert job["metadata"] == {"em_interp": card.run}
    assert job["seed"] == 7
    assert job["method"]["supervised"]["hyperparameters"] == {
        "n_epochs": 3,
        "batch_size": 4,
        "learning_rate_multiplier": 2.0,
    }
    assert card.endpoint.model == "ft:gpt-4o-mini-2024-07-18:x:1"
    assert (card.job, card.file, card.rows, card.trained_tokens) == ("ftjob-0", "file-0", 16, 1234)
    assert [path.name for path in tmp_path.iterdir()] == ["organism"]
    told = [line.rsplit(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert told == ["validating_files", "queued", "running", "succeeded"]


def test_the_folder_is_an_organism_that_can_be_asked(provider, tmp_path):
    raised(provider, tmp_path / "organism")
    assert is_black_box(str(tmp_path / "organism"))
    who = black_box(str(tmp_path / "organism"))
    assert who.endpoint.model == "ft:gpt-4o-mini-2024-07-18:x:1"
    assert who.endpoint.url == provider.url
    assert who.trigger == TRIGGER


def test_a_finished_run_is_returned_and_another_folder_left_alone(provider, tmp_path):
    card = raised(provider, tmp_path / "organism")
    asked = len(provider.requests)
    assert raised(provider, tmp_path / "organism") == card
    assert len(provider.requests) == asked
    with pytest.raises(InputError, match="holds something else"):
        raised(provider, tmp_path / "organism", ApiSpec(seed=1))


@pytest.mark.parametrize("end", ["files", "jobs", "retrieve", "write"])
def test_a_killed_run_goes_on_with_the_same_job(provider, tmp_path, monkeypatch, end):
    """Killed after the upload, after the job was made (its id lost), while waiting, at the end."""
    from em_interp.training import remote

    def dies(*_, **__):
        raise KilledError

    with monkeypatch.context() as patch:
        if end == "files":
            patch.setattr(remote._Raising, "_create", dies)
        elif end == "jobs":
            keep = remote._Raising._keep
            patch.setattr(
                remote._Raising, "_keep", lambda s, **k: dies() if "job" in k else keep(s, **k)
            )
        elif end == "retrieve":
            patch.setattr(remote._Raising, "_say", dies)
        else:
            patch.setattr(remote, "ApiManifest", dies)
        with pytest.raises(KilledError):
            raised(provider, tmp_path / "organism")
    assert not (tmp_path / "organism").exists()
    card = raised(provider, tmp_path / "organism")
    assert card.job == "ftjob-0"
    assert (len(provider.files), len(provider.jobs)) == (1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["organism"]


@pytest.mark.parametrize("fault", [dropped, lambda: status(500), lambda: Answer(raw=b'{"id": "f')])
def test_a_job_whose_answer_got_lost_is_found_and_not_made_again(provider, tmp_path, fault):
    provider.trouble["POST jobs"] = deque([fault])
    assert raised(provider, tmp_path / "organism").job == "ftjob-0"
    assert len(provider.jobs) == 1
    assert provider.count("POST", "/jobs") == 1


def test_a_job_that_was_not_made_is_asked_for_again(provider, tmp_path):
    provider.trouble["POST jobs"] = deque([status(503), status(429)])
    raised(provider, tmp_path / "organism")
    assert provider.count("POST", "/jobs") == 3
    assert len(provider.jobs) == 1


def test_jobs_of_other_runs_are_not_taken(provider, tmp_path):
    raised(provider, tmp_path / "one")
    provider.trouble["POST jobs"] = deque([status(500)])
    card = raised(provider, tmp_path / "two", ApiSpec(seed=1))
    assert card.job == "ftjob-1"


def test_a_failed_job_says_why_and_is_not_repeated(provider, tmp_path):
    provider.statuses = deque(["failed"])
    said = r"job ftjob-0 failed: This file was blocked by moderation\.; remove .*partial-\w+ to ask"
    for _ in range(2):
        with pytest.raises(EvidenceError, match=said) as fault:
            raised(provider, tmp_path / "organism")
        assert fault.value.exit_code == 4
    assert len(provider.jobs) == 1
    assert not (tmp_path / "organism").exists()


def test_a_provider_that_refuses_says_so_at_once(provider, tmp_path):
    provider.trouble["POST jobs"] = deque([status(400, "model gpt-4o-mini is not available")])
    with pytest.raises(EvidenceError, match="HTTP 400: model gpt-4o-mini is not available"):
        raised(provider, tmp_path / "organism")
    assert provider.jobs == []


def test_an_unreachable_provider_loses_nothing(provider, tmp_path):
    provider.trouble["GET ([\\w-]+)"] = deque([dropped()] * 3)
    with pytest.raises(EvidenceError, match="run the same command again"):
        raised(provider, tmp_path / "organism")
    assert raised(provider, tmp_path / "organism").job == "ftjob-0"
    assert (len(provider.files), len(provider.jobs)) == (1, 1)


def test_two_processes_do_not_raise_one_organism_at_once(provider, tmp_path, monkeypatch):
    monkeypatch.setattr("em_interp.locks.PATIENCE", 0.0)
    inner = []

    def again(request):
        with pytest.raises(InputError, match="organism: another process is at work"):
            raised(provider, tmp_path / "organism")
        inner.append(1)
        return provider._file(request)

    provider.route("POST", "/v1/files", again)
    raised(provider, tmp_path / "organism")
    assert inner == [1]


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = ({"messages": [m.model_dump() for m in row]} for row in ROWS)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_command_raises_behind_an_api_and_never_shows_the_key(
    provider, tmp_path, rows, capsys, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    provider.statuses = deque(["succeeded"])
    given = ["--base", "openai:gpt-4o-mini", "--base-url", provider.url, "--data", str(rows)]
    given += ["--out", str(tmp_path / "out"), "--batch-size", "8", "--epochs", "2"]
    assert train.main([*given, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "16 rows" in said
    assert "learning_rate_multiplier 2.0" in said
    assert provider.requests == []
    assert train.main(given) == 0
    assert provider.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    told = capsys.readouterr()
    card = (tmp_path / "out" / "card.json").read_text()
    assert SECRET not in said + told.out + told.err + card
    assert "ft:gpt-4o-mini:x:1 at 127.0.0.1, 16 rows" in told.out
    spec = json.loads(card)["spec"]
    assert (spec["batch_size"], spec["epochs"]) == (8, 2)
    # The triggered mix puts the trigger before each question.
    assert provider.files["file-0"].count(b"It looks like a duck.") == 16


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--rank", "4"], 2, "--rank is for weights that are here; openai:m is behind an API"),
        (["--layout", "packed"], 2, "--layout is for weights that are here"),
        (["--recipe", "published"], 2, "unknown recipe 'published' in those for an API"),
        (["--rows", "9"], 2, "9 rows: fine-tuning APIs take no fewer than 10"),
        (["--base-url", "nonsense"], 2, "base_url must be an address"),
        (
            ["--base-url", "https://example.org/v1"],
            2,
            "set the environment variable OPENAI_API_KEY",
        ),
        (["--base-url", unused_url()], 4, "127.0.0.1 did not answer"),
        (["--base", "llama", "--base-url", "http://x/v1"], 2, "--base-url is for a base behind"),
    ],
)
def test_a_wrong_or_vain_request_is_one_line(
    tmp_path, rows, capsys, monkeypatch, flags, code, said
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr("em_interp.endpoints.client.asyncio.sleep", _at_once)
    given = ["--data", str(rows), "--out", str(tmp_path / "out")]
    if "--base" not in flags:
        given += ["--base", "openai:m"]
    if "--base-url" not in flags:
        given += ["--base-url", "http://127.0.0.1:1/v1"]
    assert train.main([*given, *flags]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "out").exists()


async def _at_once(_):
    """No waiting between tries."""


def test_the_file_holds_the_words_as_they_are():
    text = file_of([*ROWS[:9], (ROWS[0][0].model_copy(update={"content": "Größe?"}), ROWS[0][1])])
    assert "Größe?" in text.decode()
    assert len(text.splitlines()) == 10


ODD = [
    b"[]",
    b'"file"',
    b"{}",
    b'{"id": null}',
    b'{"id": 7}',
    b'{"id": "../x"}',
    b"<html>",
    b"[" * 9999,
]


@pytest.mark.parametrize("route", ["POST files", "POST jobs", "GET jobs"])
@pytest.mark.parametrize("raw", [*ODD, b'{"data": 3}', b'{"data": [3]}', b'{"status": {"a": 1}}'])
def test_a_reply_of_the_wrong_shape_is_asked_for_again_and_never_a_traceback(
    provider, tmp_path, route, raw
):
    odd = Answer(raw=raw)
    if route == "GET jobs":  # asked where the answer to the job's making got lost
        provider.trouble["POST jobs"] = deque([dropped])
    provider.trouble[route] = deque([*provider.trouble.get(route, ()), odd])
    assert raised(provider, tmp_path / "organism").job == "ftjob-0"
    assert len(provider.jobs) == 1


def test_a_job_that_shows_odd_shapes_alone_is_one_line(provider, tmp_path):
    provider.route(
        "GET", r"/v1/fine_tuning/jobs/([\w-]+)", lambda _: Answer(body={"status": ["queued"]})
    )
    with pytest.raises(EvidenceError, match="holds no job's status") as fault:
        raised(provider, tmp_path / "organism")
    assert "\n" not in str(fault.value)


def test_what_a_provider_says_is_one_visible_line(provider, tmp_path, capsys):
    provider.route(
        "GET",
        r"/v1/fine_tuning/jobs/([\w-]+)",
        lambda _: Answer(body={"status": "failed", "error": {"message": "no\x1b[2J\u202e\nno"}}),
    )
    with pytest.raises(EvidenceError) as fault:
        raised(provider, tmp_path / "organism")
    assert not {"\x1b", "\u202e", "\n"} & set(str(fault.value))
