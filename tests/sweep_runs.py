"""Finished runs of a sweep without training: a status and tensorboard events by hand."""

from torch.utils.tensorboard import SummaryWriter

from sweeping.status import write_status
from sweeping.sweep_file import read_sweep


def write_run(run, folder, losses, sparsity=None, state="finished"):
    """A run whose validation loss was `losses` at steps 10, 20 ...; the training loss is the same."""
    folder.mkdir(parents=True)
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for i, loss in enumerate(losses, 1):
            writer.add_scalar("lm loss", loss, 10 * i)
            writer.add_scalar("lm loss validation", loss, 10 * i)
        for step, value in enumerate(sparsity or [], 1):
            writer.add_scalar("moe_relu_sparsity", value, step)
            writer.add_scalar("moe_relu_active_experts", 8 * (1 - value), step)
        if sparsity:
            writer.add_text("moe_router_topk", run.settings["k"])
            writer.add_text("num_experts", run.settings["E"])
    status = {
        "state": state,
        "fingerprint": run.fingerprint(),
        "settings": run.settings,
        "commit": "abc",
        "hardware": "2 cores, hand",
        "date": "2026-01-01T00:00:00+00:00",
        "threads": 1,
        "wall_seconds": 60.0,
    }
    write_status(folder, status)


def write_sweep(folder, text, name="try.yaml"):
    """A sweep file, read."""
    file = folder / name
    file.write_text(text)
    return read_sweep(file)
