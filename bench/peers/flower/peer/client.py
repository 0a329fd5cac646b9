"""What a Flower client does: literally our agent's worker, without its process around it.

The weights that came are evaluated on held-out examples (from the second round on) and trained by
``edge_agent.train.local_round`` under the key that our orchestrator would give, so that data, order and
randomness are the same. Scores go back as sums, which add up over clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from mas_edge.edge_agent.train import local_round, use_device
from mas_edge.models import net as nets
from mas_edge.models.evaluate import evaluate as evaluated
from mas_edge.models.tasks import Source, find
from mas_edge.wire.messages import Key, Score, Training

if TYPE_CHECKING:
    from collections.abc import Iterable

app = ClientApp()
JOB = "overhead"
"""Randomness comes from the job's name too: that of bench/overhead.py."""


class Work:
    """What a message and the node's configuration come to."""

    def __init__(self, message: Message, context: Context) -> None:
        config = context.run_config
        self.training = msgspec.json.decode(str(config["training"]), type=Training)
        self.names = tuple(str(config["tasks"]).split(","))
        self.round = int(message.content["config"]["server-round"]) - 1
        self.device = str(context.node_config["device"])
        self.workload = find(self.training.workload)
        self.tasks = self.workload.choose(self.names)
        self.source = Source(clients=(str(context.node_config["client"]),))
        use_device("cpu", threads=1)
        self.net = nets.build(self.workload, self.training.network, self.names, seed=0)
        arrays = message.content["arrays"]
        nets.load(self.net, {name: array.numpy() for name, array in arrays.items()})

    def held_out(self) -> tuple[Score, ...]:
        """Scores of the weights that came."""
        data = self.workload.dataset(self.source, "held-out", self.training.held_out_share)
        return evaluated(self.net, data, self.tasks, batch=4 * self.training.batch)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of local training."""
    work = Work(message, context)
    scores = work.held_out() if work.round else ()
    trained = local_round(
        work.net,
        work.workload.dataset(work.source, "train", work.training.held_out_share),
        tasks=work.tasks,
        training=work.training,
        key=Key(job=JOB, group="+".join(work.names), round=work.round, attempt=0, device=work.device),
        measure=False,
        enter=lambda _phase: None,
        stop=lambda: False,
        beat=lambda _step, _steps: None,
    )
    numbers = {
        "num-examples": trained.examples,
        **sums("trained", trained.losses),
        **sums("held-out", scores),
    }
    arrays = ArrayRecord({name: Array(array) for name, array in nets.state(work.net).items()})
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(numbers)}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """The weights that came, on held-out examples."""
    scores = Work(message, context).held_out()
    numbers = {"num-examples": int(max(score.count for score in scores)), **sums("held-out", scores)}
    return Message(RecordDict({"metrics": MetricRecord(numbers)}), reply_to=message)


def sums(what: str, scores: Iterable[Score]) -> dict[str, float]:
    """Count and loss of each task under names that a MetricRecord takes."""
    pairs = ((f"{what}.{score.task}", score) for score in scores)
    return {f"{name}.{key}": getattr(score, key) for name, score in pairs for key in ("count", "loss_sum")}
