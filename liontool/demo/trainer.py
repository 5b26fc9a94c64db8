"""The program that the demo kills and starts again: Lion from a converted checkpoint, in a Run.

    python -m liontool.demo.trainer RUN CHECKPOINT LOSSES STEPS SAVE_EVERY

Nothing in it knows whether it is started for the first time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from liontool.demo import corpus, training
from liontool.resume import Run


def main(folder: str, checkpoint: str, losses: str, steps: int, save_every: int) -> None:
    """Train to the end, and write a line with step and loss for each step."""
    state = training.load("Lion", Path(checkpoint))
    text, _ = corpus.load()
    with (
        open(losses, "a", encoding="ascii") as lines,
        Run(
            folder,
            model=state.model,
            optimizer=state.optimizer,
            scheduler=state.scheduler,
            steps=steps,
            save_every=save_every,
            keep={"last": steps},  # what retention removes would look like a save to the demo
        ) as run,
    ):
        while not run.finished:
            for index in run:
                loss = training.one_step(state, text, state.step + index)
                run.step(metric=loss)
                print(run.step_count, loss.hex(), file=lines, flush=True)


if __name__ == "__main__":
    run, source, log, last, every = sys.argv[1:]
    main(run, source, log, int(last), int(every))
