"""What the Flower server does: FedAvg weighted by examples, and like ours a last evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from mas_edge.models import weights
from mas_edge.wire.messages import Training

if TYPE_CHECKING:
    from collections.abc import Iterable

app = ServerApp()
PATIENCE_S = 3600.0
"""How long a round waits for replies: what ``Strategy.start`` does without an argument."""


class Closing(FedAvg):
    """FedAvg that has clients evaluate the last weights only: the earlier ones are, before they train."""

    rounds = 0

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing before the last round."""
        if server_round < self.rounds:
            return []
        return super().configure_evaluate(server_round, arrays, config, grid)


def added(records: list[RecordDict], _weighted_by: str) -> MetricRecord:
    """Scores are sums: they add up."""
    found = [dict(record["metrics"]) for record in records]
    return MetricRecord({name: math.fsum(each[name] for each in found) for name in found[0]})


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds; leave the last weights and the losses in a folder."""
    config = context.run_config
    training = msgspec.json.decode(str(config["training"]), type=Training)
    out, nodes = Path(str(config["out"])), int(config["nodes"])
    first = weights.load(Path(str(config["weights"])))
    strategy = Closing(
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
        train_metrics_aggr_fn=added,
        evaluate_metrics_aggr_fn=added,
    )
    strategy.rounds = training.rounds
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in first.items()}),
        num_rounds=training.rounds,
        timeout=PATIENCE_S,
    )
    weights.save(out / "last.safetensors", {name: array.numpy() for name, array in result.arrays.items()})
    rounds = {str(n): dict(found) for n, found in result.train_metrics_clientapp.items()}
    closing = {str(n): dict(found) for n, found in result.evaluate_metrics_clientapp.items()}
    (out / "losses.json").write_text(json.dumps({"rounds": rounds, "closing": closing}), encoding="utf-8")
