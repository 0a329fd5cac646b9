"""Models on their way into use: the shell around ``edge_agent.deployment``.

It hands requests and fetched files to the state machine and carries out what that wants: files are fetched
like weights and moved into the folder of models, a model is tried by a process of its own under the agent's
caps, and the answer is said once it is on disk. A trial begins when no training runs; those that are asked
for meanwhile wait for its end, some seconds, so that neither keeps the other from its turn and no latency is
measured beside a training. The joules of an inference are those of the window between ``Ready`` and
``Timed``, attributed by processor time as a training's are; they stand in the model's profile, and on no
task's bill. The conditions under which the device trains are not asked for: a trial takes seconds.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import msgspec

from mas_edge.edge_agent import deployment as d
from mas_edge.edge_agent.caps import threads
from mas_edge.edge_agent.model_folder import ModelFolder
from mas_edge.edge_agent.trial import Ready, Timed, TrialProcess, Tried, Try, Unfit
from mas_edge.profiling.cpu import rss_bytes
from mas_edge.profiling.rows import Use
from mas_edge.wire.blobstore import BlobRefused
from mas_edge.wire.messages import InferenceProfile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mas_edge.edge_agent.account import Account
    from mas_edge.edge_agent.caps import Fence
    from mas_edge.edge_agent.config import TrainConfig
    from mas_edge.edge_agent.moments import Moment
    from mas_edge.edge_agent.trainers import Trainers
    from mas_edge.edge_agent.trial import Word
    from mas_edge.edge_agent.uplink import Uplink
    from mas_edge.models.tasks import Source
    from mas_edge.wire.blobstore import BlobStore
    from mas_edge.wire.messages import Deploy, Deployed, Hello, InUse

log = logging.getLogger(__name__)

SLOT = -1
"""What the fence knows a trial's process by, beside the workers of the slots."""


class Deployer:
    """The models of one device."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a trial takes
        self,
        state: Path,
        blobs: BlobStore,
        account: Account,
        sources: Mapping[str, Source],
        train: TrainConfig,
        fence: Fence,
        about: Hello,
        trainers: Trainers,
        uplink: Uplink,
    ) -> None:
        self._folder, self._log = ModelFolder(state / "models"), state / "inference.log"
        self._blobs, self._account, self._sources = blobs, account, sources
        self._config, self._fence, self.caps = train, fence, about.caps
        self._trainers, self._uplink = trainers, uplink
        able = frozenset((offer.workload, task) for offer in about.workloads for task in offer.tasks)
        self._state = d.State(able=able, kept=self._folder.kept())
        self._folder.clear(self._state.needed)
        self._pending: d.Measure | None = None
        self._trial: TrialProcess | None = None
        self._since: Moment | None = None
        self._profile = InferenceProfile()
        self._unsaid: list[Deployed] = []

    @property
    def in_use(self) -> tuple[InUse, ...]:
        """The models in use."""
        return self._state.kept.in_use

    @property
    def needed(self) -> frozenset[str]:
        """Digests of the files that are on their way here or in use."""
        return self._state.needed

    @property
    def busy(self) -> bool:
        """Whether a model is tried, or is about to be."""
        return self._pending is not None or self._trial is not None

    @property
    def pids(self) -> tuple[int, ...]:
        """The process of a trial, if there is one."""
        return (self._trial.pid,) if self._trial else ()

    @property
    def trying(self) -> str:
        """The group whose model is judged; empty if none is."""
        return self._state.measuring.deploy.group if self._state.measuring else ""

    def asked(self, deploy: Deploy) -> None:
        """The orchestrator asks for a model, perhaps again."""
        try:
            if deploy.model:
                self._blobs.missing(deploy.model.file)
        except BlobRefused as error:
            log.warning("the orchestrator asks for a model whose file cannot be: %s", error)
            return
        self._step(d.Asked(deploy=deploy))

    def fetched(self, digest: str) -> None:
        """A file is whole on our disk; perhaps one of ours."""
        here = False
        if digest in self._state.needed:
            with self._account.room.writing():
                here = self._folder.take(self._blobs, digest)
        if here:
            self._step(d.Fetched(digest=digest))

    def turn(self) -> None:
        """Begin what may begin now, hear what the trial says, and say what had no room on disk."""
        self._trainers.paused = self.busy
        if self._pending and not self._trial and not self._trainers.working:
            self._begin(self._pending)
        for word in self._trial.heard() if self._trial else ():
            self._heard(word)
        self._keep()

    def close(self) -> None:
        """End the trial; the orchestrator asks again."""
        if self._trial:
            self._trial.close()

    # --- the state machine ----------------------------------------------------------------------

    def _step(self, event: d.Event) -> None:
        needed = self._state.needed
        self._state, actions = d.step(self._state, event)
        for digest in needed - self._state.needed:
            self._uplink.drop(digest)
        for action in actions:
            match action:
                case d.Say(answer=answer):
                    if answer not in self._unsaid:
                        self._uplink.say(answer)
                case d.Fetch(ref=ref):
                    self.fetched(ref.digest)
                    if not self._folder.has(ref.digest):
                        self._uplink.want(ref)
                case d.Measure():
                    self._pending = action
                case d.Stop():
                    self._over()
                case d.Keep(answer=answer):
                    self._unsaid.append(answer)
        self._keep()

    def _keep(self) -> None:
        """What is kept goes to the disk, then the answers are said, then files that nobody needs go."""
        if not self._unsaid:
            return
        with self._account.room.writing():
            self._folder.keep(self._state.kept)
            for answer in self._unsaid:
                log.info("%s: %s%s", answer.group, answer.verdict, f": {answer.why}" if answer.why else "")
                self._uplink.say(answer)
            self._unsaid = []
            self._folder.clear(self._state.needed)

    # --- trials -----------------------------------------------------------------------------------

    def _begin(self, measure: d.Measure) -> None:
        self._trainers.rest()
        model, self._profile = measure.model, InferenceProfile()
        source = self._sources[model.workload]
        processors, own_bytes = len(os.sched_getaffinity(0)), rss_bytes(os.getpid()) or 0
        order = Try(
            path=str(self._folder.path(model.file.digest)),
            digest=model.file.digest,
            workload=model.workload,
            tasks=model.tasks,
            clients=source.clients,
            root=str(source.root) if source.root else None,
            threads=self._config.threads or threads(self.caps, processors),
            held_out_share=measure.held_out_share,
        )
        self._trial = TrialProcess(order, self._log)
        self._fence.around(self._trial.pid, own_bytes, SLOT)

    def _heard(self, word: Word) -> None:
        match word:
            case Ready() if self._trial:
                self._since = self._account.moment()
                self._trial.go()
            case Timed():
                self._profile = self._priced(word)
            case Tried():
                profile = msgspec.structs.replace(
                    self._profile,
                    scores=word.scores,
                    inputs_per_s=word.inputs_per_s,
                    batch=word.batch,
                    peak_rss_bytes=word.peak_rss_bytes,
                )
                self._end(d.Measured(profile=profile, held_out_share=word.held_out_share))
            case Unfit(why=why):
                self._end(d.Unsound(why=why))

    def _priced(self, timed: Timed) -> InferenceProfile:
        """Latencies, and joules of one input; those unknown where the host's idle power or a sensor is."""
        energy_j = u_j = method = None
        if self._since is not None:
            use = Use(job="", group="", round=0, phase="infer", wall_s=timed.wall_s, cpu_s=timed.cpu_s)
            spend, sensor = self._account.price(self._since, use)
            if spend.attributed_energy_j is not None:
                energy_j, method = spend.attributed_energy_j / timed.inputs, sensor.method
                u_j = None if spend.attributed_u_j is None else spend.attributed_u_j / timed.inputs
        return InferenceProfile(
            latency_p50_s=timed.latency_p50_s,
            latency_p95_s=timed.latency_p95_s,
            energy_j=energy_j,
            energy_u_j=u_j,
            method=method,
        )

    def _end(self, event: d.Measured | d.Unsound) -> None:
        self._over()
        self._step(event)

    def _over(self) -> None:
        """No model is in hand any more."""
        if self._trial:
            self._trial.close()
        self._trial = self._pending = self._since = None
