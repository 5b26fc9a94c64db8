"""A run from its first argument to its last save."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from liontool.checkpoint.run_folder.checking import read_commit
from liontool.checkpoint.system import SYSTEM
from liontool.errors import (
    DamagedError,
    FormatError,
    LockedError,
    PublishError,
    ResumeError,
    StateTypeError,
)
from liontool.optim import Lion
from liontool.resume import Run, SampleSeeded, opening
from liontool.resume.signals import SIGNALS
from support.exact_loaders import Augmented, Plain, PlainStream, loader
from support.no_sync import NoSync

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SYSTEM, "fsync", lambda fd: None)


class Lines(list[str]):
    """What a run says."""

    def having(self, words: str) -> list[str]:
        return [line for line in self if words in line]


@pytest.fixture
def said() -> Lines:
    return Lines()


@pytest.fixture
def build(tmp_path: Path, said: Lines) -> Any:
    """Makes runs in one folder; those that a test leaves open are let go."""
    made: list[Run] = []

    def build(**options: Any) -> Run:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if "epochs" not in options:
            options.setdefault("steps", 4)
        options.setdefault("save_every", "1h")
        options.setdefault("say", said.append)
        folder = options.pop("folder", tmp_path / "run")
        made.append(Run(folder, model=model, optimizer=optimizer, **options))
        return made[-1]

    yield build
    for run in made:
        let_go(run)


def let_go(run: Run) -> None:
    """What an exception in a `with` does."""
    run.__exit__(RuntimeError, RuntimeError(), None)


def train(run: Run, steps: int = 99, **options: Any) -> list[Any]:
    """Step with each batch, at most so often."""
    batches = []
    if steps:
        for batch in run:
            batches.append(batch)
            run.step(**options)
            if len(batches) == steps:
                break
    return batches


def saved(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in sorted(folder.glob("run/step-*"))]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": None}, "give either steps= or epochs="),
        ({"steps": 3, "epochs": 1}, "give either steps= or epochs="),
        ({"steps": 0}, "steps must be a whole number from 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number from 1, got 2.5"),
        ({"epochs": 2}, "epochs= counts passes over a loader, and there is none"),
        ({"save_every": "often"}, "save_every must be a number of steps"),
        ({"keep": {"first": 1}}, "keep: unknown 'first'"),
        ({"loader": [1, 2]}, "loader must be torchdata's StatefulDataLoader, or None, got"),
    ],
)
def test_wrong_arguments(build: Any, tmp_path: Path, options: Any, words: str) -> None:
    """A wrong argument is an error, and nothing is made on disk."""
    with pytest.raises(ValueError, match=words):
        build(**options)
    assert not (tmp_path / "run").exists()


def refused_loaders() -> list[tuple[Any, str]]:
    return [
        (lambda: DataLoader(Augmented()), "change its import: from torchdata.stateful_dataloader"),
        (
            lambda: loader(SampleSeeded(Plain(10)), num_workers=1, persistent_workers=True),
            "take persistent_workers=False",
        ),
        (lambda: loader(Plain(10), num_workers=1, in_order=False), "take in_order=True"),
    ]


@pytest.mark.parametrize(("made", "words"), refused_loaders())
def test_refused_loaders(build: Any, made: Callable[[], Any], words: str) -> None:
    """A loader whose place cannot be kept is refused with the change that helps."""
    with pytest.raises(ResumeError, match=words):
        build(loader=made())


def test_without_torchdata(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is named with the command that brings it."""
    monkeypatch.setitem(__import__("sys").modules, "torchdata.stateful_dataloader", None)
    with pytest.raises(ResumeError, match=r"pip install 'liontool\[resume\]'"):
        build(loader=DataLoader(Plain()))


def test_counts(build: Any, tmp_path: Path) -> None:
    """Steps and passes count over all starts."""
    run = build(loader=loader(Plain(10)), steps=8)
    assert (run.step_count, run.epoch, run.saved_step, run.resumed_from) == (0, 0, None, None)
    assert len(train(run)) == 5
    assert (run.step_count, run.epoch, run.finished) == (5, 1, False)
    assert len(train(run, 2)) == 2
    run.close()
    assert (run.saved_step, saved(tmp_path)) == (7, [7])
    again = build(loader=loader(Plain(10)), steps=8)
    assert (again.step_count, again.epoch, again.saved_step, again.resumed_from) == (7, 1, 7, 7)
    assert len(train(again)) == 1
    assert again.finished
    again.close()
    assert saved(tmp_path) == [7, 8]


@pytest.mark.parametrize("goal", [{"steps": 4}, {"epochs": 1}])
def test_finished(build: Any, goal: Any, said: Lines) -> None:
    """A finished run that is started again yields nothing and saves nothing."""
    run = build(loader=loader(Plain(10)), **goal)
    train(run)
    run.close()
    last = run.saved_step
    again = build(loader=loader(Plain(10)), **goal)
    assert again.finished
    assert train(again) == []
    again.close()
    assert again.saved_step == again.resumed_from == last


def test_larger_goal(build: Any) -> None:
    """A finished run that is given more steps goes on."""
    run = build()
    assert train(run) == [0, 1, 2, 3]
    run.close()
    assert train(build(steps=6)) == [4, 5]


def test_end_of_a_pass(build: Any) -> None:
    """A save at the end of a pass is gone on from with an empty pass, then with the next."""
    run = build(loader=loader(Plain(10)), steps=7)
    train(run, 5)
    assert run.save() == 5
    assert run.epoch == 0
    let_go(run)
    again = build(loader=loader(Plain(10)), steps=7)
    assert train(again) == []
    assert again.epoch == 1
    assert len(train(again)) == 2


def test_accumulation(build: Any, tmp_path: Path) -> None:
    """Between steps nothing is saved, and batches since the last step are drawn again."""
    run = build(save_every=1)
    batches = iter(run)
    assert [next(batches), next(batches)] == [0, 1]
    run.step()
    assert [next(batches), next(batches)] == [2, 3]
    with pytest.raises(ResumeError, match="2 batches were drawn since the last"):
        run.save()
    let_go(run)
    assert saved(tmp_path) == [1]
    assert train(build(), 1) == [2]


def test_save(build: Any, tmp_path: Path) -> None:
    """`save` is durable when it returns."""
    run = build()
    assert run.save() == 0
    train(run, 2)
    assert run.save() == run.save() == run.saved_step == 2
    assert saved(tmp_path) == [0, 2]
    assert [path.name for path in tmp_path.rglob("*tmp*")] == []


def test_save_of_a_step_that_is_saved(build: Any, tmp_path: Path) -> None:
    """What changed since, such as averaged weights at the end, is in the checkpoint."""
    extra = nn.Linear(1, 1)
    run = build(extra=extra)
    train(run, 4)
    run.save()
    nn.init.constant_(extra.weight, 7.0)
    assert run.save() == 4
    run.close()
    assert saved(tmp_path) == [4]
    again = nn.Linear(1, 1)
    build(extra=again).close()
    assert again.weight.item() == 7.0


def test_no_save_of_averaged_weights(tmp_path: Path) -> None:
    """The weights that are trained would be lost; outside it is saved."""
    model = nn.Linear(1, 1)
    optimizer = Lion(model.parameters(), lr=0.1, use_ema=True)
    with Run(tmp_path, model=model, optimizer=optimizer, steps=1, say=print) as run:
        for _ in run:
            model(torch.ones(1, 1)).sum().backward()
            optimizer.step()
            run.step()
        with (
            optimizer.averaged_weights(),
            pytest.raises(ResumeError, match="optimizer: a save inside averaged_weights"),
        ):
            run.save()
        assert run.save() == 1


def test_a_save_that_is_due(build: Any, tmp_path: Path) -> None:
    """It happens when the loop asks for the next batch, so the rest of the body belongs to it."""
    run = build(save_every=2)
    for _ in run:
        run.step()
        run._saves.settle()
        assert saved(tmp_path) == [[], [], [2], [2]][run.step_count - 1]
    run.close()
    assert saved(tmp_path) == [2, 4]


class Failed(Exception):
    """An error in the body."""


def fail_after(run: Run, steps: int) -> None:
    """Train, and fail."""
    train(run, steps)
    raise Failed


def test_exception(build: Any, tmp_path: Path) -> None:
    """An exception in the body saves nothing, and lets the folder go."""
    with pytest.raises(Failed), build() as run:
        fail_after(run, 1)
    assert saved(tmp_path) == []
    build()


def close_finally(run: Run) -> None:
    """What many scripts do."""
    try:
        fail_after(run, 1)
    finally:
        run.close()


def test_close_while_an_exception_passes(build: Any, tmp_path: Path, said: Lines) -> None:
    """`finally: run.close()` saves nothing after an exception, and says so."""
    run = build()
    with pytest.raises(Failed):
        close_finally(run)
    assert said.having("step 1 is not saved: an exception ended the run")
    assert saved(tmp_path) == []
    build()


def test_closed(build: Any) -> None:
    """A run that is closed does nothing more; to close it twice is no error."""
    run = build()
    run.close()
    run.close()
    for use in (run.save, run.step, lambda: next(iter(run))):
        with pytest.raises(ResumeError, match="the run is closed"):
            use()


def test_with(build: Any, tmp_path: Path) -> None:
    """A `with` closes."""
    with build() as run:
        train(run)
    assert saved(tmp_path) == [4]


def test_close_verifies(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that reached the disk wrong are found by `close`."""
    write = SYSTEM.write
    monkeypatch.setattr(SYSTEM, "write", lambda fd, data: write(fd, bytes(len(data))))
    run = build()
    train(run)
    with pytest.raises(DamagedError, match="step-0000000004"):
        run.close()


def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, data: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(SYSTEM, "write", fail)


def test_a_save_that_fails(
    build: Any, tmp_path: Path, said: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on and says so at the next boundary; the older checkpoint stays."""
    run = build(save_every=1, steps=3)
    train(run, 1)
    run.save()
    with monkeypatch.context() as patched:
        failing(patched)
        next(iter(run))
        run.step()
        next(iter(run))
        run._saves._saver._thread.join()
    assert run.saved_step == 1
    run.step()
    assert list(run) == []
    assert len(said.having("training goes on")) == 1
    run.close()
    assert saved(tmp_path) == [1, 3]


@pytest.mark.parametrize("how", ["save", "close", "signal"])
def test_a_save_that_is_waited_for_fails(
    build: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a save gets its error, and the folder is free afterwards."""
    run = build()
    train(run, 1)

    def by_signal() -> None:
        signal.raise_signal(signal.SIGTERM)
        next(iter(run))

    wait = {"save": run.save, "close": run.close, "signal": by_signal}[how]
    with monkeypatch.context() as patched:
        failing(patched)
        with pytest.raises(PublishError, match="Input/output error"):
            wait()
    let_go(run)
    assert build().resumed_from is None


def test_best_needs_a_metric(build: Any) -> None:
    """Without a metric there is no best."""
    run = build(keep={"best": 1})
    next(iter(run))
    with pytest.raises(ValueError, match="needs a metric at each step"):
        run.step()


@pytest.mark.parametrize("metric", [torch.zeros(2), "low", torch.tensor(1j), [1], 10**400])
def test_metric_is_a_number(build: Any, metric: Any) -> None:
    """A metric is one number."""
    run = build()
    next(iter(run))
    with pytest.raises(ValueError, match="metric must be one number, got"):
        run.step(metric=metric)


def test_metric(build: Any, tmp_path: Path) -> None:
    """A tensor is not read before a save, and later changes of it do not count."""
    run = build()
    next(iter(run))
    metric = torch.tensor([0.25], requires_grad=True)
    with NoSync():
        run.step(metric=metric)
    with torch.no_grad():
        metric.zero_()
    run.save()
    assert read_commit(tmp_path / "run/step-0000000001").metric == 0.25


def test_lock(build: Any) -> None:
    """One run has the folder, until it is closed."""
    run = build()
    with pytest.raises(LockedError, match="close"):
        build()
    run.close()
    build()


def test_level(build: Any, said: Lines, tmp_path: Path) -> None:
    """Workers without seeded samples are not exact, which is said once and written down."""
    run = build(loader=loader(Augmented(), num_workers=1), steps=2)
    assert run.level == "state-exact"
    train(run)
    run.close()
    assert len(said.having("SampleSeeded(dataset)")) == 1
    facts = json.loads((tmp_path / "run/step-0000000002/run.json").read_text())
    assert (facts["level"], facts["reasons"]) == ("state-exact", run.reasons)


def test_exact(build: Any, said: Lines, tmp_path: Path) -> None:
    """Seeded samples, and no workers, are exact; a stream without a state is not."""
    made = [
        loader(SampleSeeded(Augmented()), num_workers=2),
        loader(Augmented()),
        None,
        loader(PlainStream()),
    ]
    levels = [build(folder=tmp_path / str(i), loader=one).level for i, one in enumerate(made)]
    assert levels == ["exact", "exact", "exact", "state-exact"]
    assert len(said.having("not exact")) == 1


def test_another_loader(build: Any, said: Lines) -> None:
    """Other data is an error; if it is allowed, the run is not exact any more."""
    run = build(loader=loader(Plain(9)))
    train(run, 2)
    run.close()
    with pytest.raises(ResumeError, match=r"allow=\('data',\)"):
        build(loader=loader(Plain(7)))
    again = build(loader=loader(Plain(7)), allow=("data",))
    assert again.level == "state-exact"
    assert len(train(again)) == 2


def test_another_number_of_workers(build: Any, said: Lines) -> None:
    """With workers, and none before, the pass begins again."""
    run = build(loader=loader(SampleSeeded(Plain(10))))
    train(run, 2)
    run.close()
    again = build(loader=loader(SampleSeeded(Plain(10)), num_workers=1), allow=("data",), steps=7)
    assert len(train(again)) == 5
    assert len(said.having("the pass begins again")) == 1


class Odd:
    """Something with a state of its choice."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"deep": [self.value]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        (self.value,) = state["deep"]


def test_state_that_cannot_be_kept(build: Any) -> None:
    """It is an error when the run is built, which names the path; the folder is free then."""
    with pytest.raises(StateTypeError, match=r"extras\.odd\.deep\.0"):
        build(odd=Odd(object()))
    build(odd=Odd({1, 2}))


def test_loader_state_that_cannot_be_kept(build: Any) -> None:
    """That of a loader is looked at before its first batch."""
    dataset = Plain(10)
    dataset.state_dict = lambda: {"odd": object()}  # type: ignore[attr-defined]
    dataset.load_state_dict = lambda state: None  # type: ignore[attr-defined]
    run = build(loader=loader(dataset))
    with pytest.raises(StateTypeError, match=r"loader.*odd"):
        next(iter(run))


def test_more_state(build: Any) -> None:
    """Anything with a state dict is kept by its keyword."""
    run = build(odd=Odd((1, {"a": float("inf")})))
    train(run, 1)
    run.close()
    odd = Odd(None)
    build(odd=odd)
    assert odd.value == (1, {"a": float("inf")})


def test_damaged(build: Any, said: Lines, tmp_path: Path) -> None:
    """A damaged checkpoint is named and put aside, and the one before it is used."""
    run = build()
    train(run, 1)
    run.save()
    train(run, 1)
    run.close()
    file = tmp_path / "run/step-0000000002/state-0.json"
    file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))
    assert build().resumed_from == 1
    assert len(said.having("step-0000000002 was refused and moved to")) == 1
    assert (tmp_path / "run/quarantine/step-0000000002").is_dir()


def test_nothing_good(build: Any, tmp_path: Path) -> None:
    """If all are damaged the run does not begin again, and nothing is moved or deleted."""
    run = build()
    train(run, 1)
    run.close()
    left = tmp_path / "run/.12-0123abcd.liontool-tmp"
    left.mkdir()
    (tmp_path / "run/step-0000000001/COMMIT").unlink()
    with pytest.raises(ResumeError, match="no checkpoint in it is good"):
        build()
    assert saved(tmp_path) == [1]
    assert left.is_dir()


def test_leftovers(build: Any, tmp_path: Path) -> None:
    """What a killed save left behind goes."""
    left = tmp_path / "run/.12-0123abcd.liontool-tmp"
    left.mkdir(parents=True)
    build()
    assert not left.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("run"), "does not say where the run stands"),
        (lambda state: state["run"].update(step=7), "does not say where the run stands"),
        (lambda state: state["run"].update(drawn=-1), "does not say where the run stands"),
        (lambda state: state["run"].update(between=0), "does not say where the run stands"),
        (lambda state: state.pop("generators"), "generators"),
        (lambda state: state["generators"].update(numpy=[1]), "generators"),
        (lambda state: state.pop("pass_generators"), "generators"),
    ],
)
def test_not_a_position(
    build: Any, change: Callable[[Any], Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that says nothing about its place is refused, and nothing was changed."""
    run = build()
    train(run, 1)
    next(iter(run))
    run.step()
    run.save()
    let_go(run)
    read = opening.read_state

    def changed(*given: Any) -> Any:
        state, facts = read(*given)
        change(state)
        return state, facts

    monkeypatch.setattr(opening, "read_state", changed)
    with pytest.raises(FormatError, match=words):
        build()


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signal_in_the_body(
    build: Any, number: int, code: int, tmp_path: Path, said: Lines
) -> None:
    """It is seen, the step ends, it is saved, and everything is given back."""
    before = handlers()
    run = build()
    batches = iter(run)
    next(batches)
    assert not run.stopping
    signal.raise_signal(number)
    assert run.stopping
    run.step()
    with pytest.raises(SystemExit) as ended:
        next(batches)
    assert ended.value.code == code
    assert saved(tmp_path) == [1]
    assert handlers() == before
    assert said.having(f"stopped by a signal at step 1; exit code {code}")
    build()


def test_signal_in_the_last_step(build: Any, tmp_path: Path) -> None:
    """Then `close` ends the process, with everything saved."""
    run = build(steps=1)
    next(iter(run))
    run.step()
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run.close()
    assert ended.value.code == 75
    assert saved(tmp_path) == [1]


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_after_the_load(
    build: Any, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the constructor it is noted; what was loaded is not saved again."""
    run = build()
    train(run, 1)
    run.close()
    monkeypatch.setattr("liontool.resume.run.ignoring_signals", lambda loader: Sending(number))
    again = build()
    assert again.stopping
    with pytest.raises(SystemExit):
        train(again)
    assert saved(tmp_path) == [1]


class Sending:
    """A context that begins with a signal."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> None:
        signal.raise_signal(self.number)

    def __exit__(self, *_: Any) -> None:
        pass


def test_interrupt_before_the_load(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until something is loaded Ctrl-C ends the constructor as ever; the folder is free then."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = handlers()

    def interrupted(*_: Any) -> Any:
        assert handlers() == before
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr("liontool.resume.run.good_choice", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build()
    signal.signal(signal.SIGINT, earlier)
    build()


def test_says_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines go to stderr, with the name of who says them."""
    model = nn.Linear(1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = Run(
            tmp_path,
            model=model,
            optimizer=torch.optim.SGD(model.parameters()),
            loader=loader(Plain(10), num_workers=1),
            steps=1,
        )
    let_go(run)
    assert capsys.readouterr().err.startswith("liontool: not exact: ")


def test_never_reads_ahead(build: Any) -> None:
    """No sample is read before its batch is asked for."""
    read: list[int] = []

    class Told(Plain):
        def __getitem__(self, index: int) -> torch.Tensor:
            read.append(index)
            return super().__getitem__(index)

    run = build(loader=loader(Told(10)), save_every=1)
    for count, _ in enumerate(run, 1):
        assert len(read) == 2 * count
        run.step()


def test_a_save_that_falls_due_during_another(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training does not wait for it; the next boundary after its end takes the next save."""
    may_write = threading.Event()
    write = SYSTEM.write

    def slow(fd: int, data: Any) -> int:
        assert may_write.wait(20)
        return write(fd, data)

    monkeypatch.setattr(SYSTEM, "write", slow)
    run = build(save_every=1, steps=9)
    assert train(run, 5) == [0, 1, 2, 3, 4]
    assert (saved(tmp_path), run.saved_step) == ([], None)
    may_write.set()
    run._saves.settle()
    train(run, 1)
    run._saves.settle()
    assert saved(tmp_path) == [1, 5]


def test_a_fork_of_the_script(build: Any) -> None:
    """A process that the script forks ends without a look at the workers of the run."""
    run = build(loader=loader(SampleSeeded(Plain(10)), num_workers=1))
    next(iter(run))
    pid = os.fork()
    if not pid:
        code = 1
        with contextlib.suppress(BaseException):
            run._passes.end()
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(list(run)) == 4


def test_batches_after_the_last_step(build: Any) -> None:
    """A run of passes whose last batches make no step is finished and saved all the same."""
    run = build(loader=loader(Plain(10)), epochs=1)
    for count, _ in enumerate(run, 1):
        if count % 2 == 0:
            run.step()
    run.close()
    assert run.saved_step == 2
    assert build(loader=loader(Plain(10)), epochs=1).finished
