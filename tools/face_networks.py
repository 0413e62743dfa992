"""Trains the networks of faces that the course carries: the prior's head with its critic, and the encoder.

    python tools/face_networks.py face-prior
    python tools/face_networks.py encoder

A run that was stopped or killed goes on when the same command is given again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nstlib.assets.weights import save_weights
from nstlib.faces.generated import Faces
from nstlib.methods import face_networks
from nstlib.nets import hardware
from nstlib.training import Schedule, TrainingResult

# The steps of `shipped` are those of the course's own files.
PRESETS: dict[str, dict[str, dict[str, int]]] = {
    "face-prior": {
        "shipped": {"steps": 500, "batch": 2, "faces": 380},
        "smoke": {"steps": 2, "batch": 1, "faces": 2},
        "paper": {"steps": 50_000, "batch": 16, "faces": 10_000},
    },
    "encoder": {
        "shipped": {"steps": 600, "batch": 6},
        "smoke": {"steps": 2, "batch": 2},
        "paper": {"steps": 100_000, "batch": 16},
    },
}


def story(result: TrainingResult, schedule: Schedule) -> dict[str, Any]:
    """What a file of weights says of its training."""
    return {
        "seed": schedule.seed, "steps": result.step, "batch": schedule.batch,
        "seconds": round(result.seconds), "losses": result.losses,
    }  # fmt: skip


@click.command()
@click.argument("network", type=click.Choice(list(PRESETS)))
@click.option("--preset", type=click.Choice(["shipped", "smoke", "paper"]), default="shipped")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("."), help="Where the files go.")
@click.option("--seed", type=int, default=0)
@click.option("--device", default="auto")
def main(network: str, preset: str, folder: Path, seed: int, device: str) -> None:
    """Train one of the networks."""
    hardware.keep_freed_memory()
    values = PRESETS[network][preset]
    schedule = Schedule(steps=values["steps"], batch=values["batch"], average=0.995, seed=seed)
    run = folder / f"{network}.run"
    if network == "face-prior":
        head, critic, result = face_networks.fit_prior(Faces(device), values["faces"], schedule, folder=run)
        if not result.interrupted:
            about = {"faces": values["faces"], **story(result, schedule)}
            name = "mobilestylegan_128.safetensors"
            save_weights(folder / name, head.state_dict(), {"network": "face prior's head", **about})
            about["network"] = "face prior's critic"
            save_weights(folder / "face_critic.safetensors", critic.state_dict(), about)
    else:
        net, result = face_networks.fit_encoder(Faces(device).prior(), schedule, folder=run)
        if not result.interrupted:
            about = {"network": "face encoder", **story(result, schedule)}
            save_weights(folder / "face_encoder.safetensors", net.state_dict(), about)


if __name__ == "__main__":
    main()
