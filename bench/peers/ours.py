"""The work on our own system: the embedded broker, `mas serve` and an agent per node."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import defaultdict
from pathlib import Path

import msgspec

from bench.peers.processes import Processes
from bench.peers.sites import JOB, SERVER, TASKS, Links, Said, Work, listening_port, node_name, python
from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.report import report
from mas_edge.orchestrator.rounds import Heard, Merged
from mas_edge.orchestrator.service import open_store, read_store
from mas_edge.orchestrator.spec import JobSpec, check

MAS = str(Path(sys.executable).with_name("mas"))


class Ours:
    """One job; several groups are its policy one-by-one."""

    def __init__(self, folder: Path, work: Work, links: Links) -> None:
        self._folder, self._work, self.links = folder, work, links
        self._state = folder / "state"
        socket = {"MAS_SOCKET": str(self._state / "control.sock"), "PYTHONSAFEPATH": "1"}
        self.processes = Processes(folder, socket)

    def begin(self) -> None:
        """Keep the job in the store, then start everything."""
        devices = tuple(node_name(n) for n in range(1, self._work.nodes + 1))
        policy = "one-by-one" if len(self._work.groups) > 1 else "all-in-one"
        spec = JobSpec(name=JOB, tasks=TASKS, training=self._work.training, policy=policy, devices=devices)
        self._state.mkdir()
        with contextlib.closing(open_store(self._state)) as store:
            store.add_job(JOB, msgspec.json.encode(check(spec)))
        broker = listening_port(
            self.processes, "broker", lambda port: python("mas_edge.wire.broker", "--port", str(port))
        )
        config = self._config("orchestrator", broker, f'state = "{self._state}"')
        self.processes.start(SERVER, MAS, "serve", "--config", config, "--until-done")
        for number, device in enumerate(devices, 1):
            own = f'device = "{device}"\nstate = "{self._folder / device}"'
            port = self.links.open(device, broker)
            config = self._config(device, port, own, f'[data.watch]\nclients = ["{number}"]\n')
            self.processes.start(device, *python("mas_edge.edge_agent.cli", "run", "--config", config))

    def _config(self, name: str, port: int, own: str, more: str = "") -> str:
        path = self._folder / f"{name}.toml"
        tables = f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n[energy]\nmeter = "estimate"\n'
        path.write_text(f'fleet = "peers"\n{own}\n{tables}{more}', encoding="utf-8")
        return str(path)

    def over(self) -> bool:
        """Whether the orchestrator ended, which it does with its job."""
        return self.processes.code(SERVER) == 0

    def said(self) -> Said:
        """What `mas ps` says."""
        asked = self.processes.ask(MAS, "ps", "--json")
        if asked.returncode and self.over():
            return Said("`mas serve --until-done` ended well", over=True, done=True)
        if asked.returncode:
            return Said((asked.stderr or asked.stdout).strip())
        (job,) = json.loads(asked.stdout)["jobs"]
        words = ", ".join(filter(None, (job["phase"], job["at"], job["waits_for"], job["reason"])))
        over = job["phase"] in {"done", "failed"}
        return Said(words, goes_on=not over, over=over, done=job["phase"] == "done")

    def _stored(self) -> list[tuple[float, jobs.Event]]:
        with contextlib.closing(read_store(self._state)) as store:
            return [(time_s, event) for _, time_s, event in store.events(JOB)]

    def losses(self) -> dict[str, float]:
        """Mean training losses of each round, and held-out losses of the weights that it brought."""
        with contextlib.closing(read_store(self._state)) as store:
            ((_, body),) = store.jobs()
        stored = self._stored()
        made = report(msgspec.json.decode(body, type=JobSpec), stored)
        found = {f"held-out {p.task}, round {p.round + 1}": p.loss for p in made.curve if p.loss is not None}
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for event in (event for _, event in stored if isinstance(event, Heard)):
            for score in event.update.trained:
                of = sums[f"trained {score.task}, round {event.update.key.round + 1}"]
                of[0], of[1] = of[0] + score.loss_sum, of[1] + score.count
        return {**found, **{name: loss / count for name, (loss, count) in sums.items()}}

    def round_s(self) -> float | None:
        """From the first weights to the first merge, in job time."""
        stored = self._stored()
        return next((at_s - stored[0][0] for at_s, event in stored if isinstance(event, Merged)), None)

    def close(self) -> None:
        """End everything."""
        self.processes.close()
        self.links.close()
