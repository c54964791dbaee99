"""What a training run tells those who watch it: a progress bar, TensorBoard's curves and pictures, and a history."""

import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gen_affect_lib.errors import UserError


class Logbook:
    """Used in a `with`. `history`: the rows so far, which new ones join. `step` and `used`: where the run stands, the
    latter as the share of it that is over, so that a limit in steps and one in minutes look alike.
    """

    def __init__(self, folder: Path, history: list[dict], step: int, used: float):
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import, and is only needed here

        self.folder, self.history = folder, history
        with writing_to(folder):
            self.writer = SummaryWriter(folder / "logs", purge_step=step + 1)  # a killed run redoes some
        form = "{percentage:3.0f}%|{bar:20}| {desc} [{elapsed}, {remaining} left]"
        self.bar = tqdm(total=1.0, initial=min(used, 1), bar_format=form, mininterval=0.5, miniters=0, smoothing=0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()
        with writing_to(self.folder):
            self.writer.close()

    def advance(self, used: float) -> None:
        self.bar.update(min(used, 1) - self.bar.n)

    def record(self, step: int, seconds: float, row: dict[str, float]) -> None:
        """A row for the history, and a point on each of its curves."""
        self.history.append({"step": step, "seconds": round(seconds, 3), **row})
        if "training/loss" in row:
            loss, speed = row["training/loss"], row["training/images_per_second"]
            self.bar.set_description_str(f"step {step}, loss {loss:.4f}, {speed:.0f} images/s", refresh=False)
        with writing_to(self.folder):
            for name, value in row.items():
                self.writer.add_scalar(name, value, step)

    def show(self, step: int, picture: np.ndarray) -> None:
        """A picture (H, W, 3) uint8, under TensorBoard's images."""
        with writing_to(self.folder):
            self.writer.add_image("samples", picture, step, dataformats="HWC")


class Speed:
    """Images per second of learning alone: the time in `paused` does not count."""

    def __init__(self):
        self.start_over()

    def start_over(self) -> None:
        self.since = time.perf_counter()

    def of(self, images: int) -> float:
        return images / max(time.perf_counter() - self.since, 1e-9)

    @contextmanager
    def paused(self):
        begun = time.perf_counter()
        yield
        self.since += time.perf_counter() - begun


@contextmanager
def writing_to(folder: Path):
    """Turns the system's errors about a folder (full disk, no permission, a file of that name) into one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror or error}): checkpoints that are there stay intact; make room, "
            "or choose another folder"
        ) from error
