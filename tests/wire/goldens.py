"""One message of each class, and its bytes: pinned by a test, shown in docs/protocol.md."""

from __future__ import annotations

from mas_edge.wire import messages as m

KEY = m.Key(job="j1", group="g0", round=3, attempt=1, device="pi-3")
KEY_JSON = b'{"job":"j1","group":"g0","round":3,"attempt":1,"device":"pi-3"}'
REF = m.BlobRef(digest="ab" * 32, size_bytes=1000, chunk_bytes=512)
REF_JSON = b'{"digest":"' + b"ab" * 32 + b'","size_bytes":1000,"chunk_bytes":512}'
SENSOR = m.Sensor(name="rapl", method="counter", scope="package", sensor_host="b7:intel-rapl:0")
SENSOR_JSON = b'{"name":"rapl","method":"counter","scope":"package","sensor_host":"b7:intel-rapl:0"}'
MODEL = m.Model(workload="watch", job="j1", group="g0", round=8, tasks=("jerk",), file=REF, precision="int8")
MODEL_JSON = (
    b'{"workload":"watch","job":"j1","group":"g0","round":8,"tasks":["jerk"],"file":'
    + REF_JSON
    + b',"precision":"int8"}'
)

GOLDEN: dict[m.Up | m.Down | m.Alive, bytes] = {
    m.Hello(
        device="pi-3",
        boot_id="b7",
        versions=m.Versions(mas_edge="0.1.0", python="3.11.7", torch="2.13.0"),
        workloads=(
            m.Offer(workload="watch", tasks=("gravity", "jerk"), clients=("1", "2"), fingerprint="f0"),
        ),
        spooled=(KEY,),
        cpus=4,
        sensor=SENSOR,
        refused=(m.Refusal(sensor="nvml", reason="no GPU"),),
        caps=m.Caps(
            memory_bytes=500, memory_source="MemoryMax", cpus=1.5, cpus_source="threads", cpus_enforced=False
        ),
        slots=2,
        beside=(KEY,),
        in_use=(m.InUse(model=MODEL, previous=MODEL),),
    ): (
        b'{"kind":"hello","device":"pi-3","boot_id":"b7",'
        b'"versions":{"mas_edge":"0.1.0","python":"3.11.7","torch":"2.13.0"},'
        b'"workloads":[{"workload":"watch","tasks":["gravity","jerk"],"clients":["1","2"],"fingerprint":"f0"}],'
        b'"spooled":[' + KEY_JSON + b'],"cpus":4,"sensor":' + SENSOR_JSON + b","
        b'"refused":[{"sensor":"nvml","reason":"no GPU"}],'
        b'"caps":{"memory_bytes":500,"memory_source":"MemoryMax","cpus":1.5,"cpus_source":"threads",'
        b'"cpus_enforced":false},"slots":2,"beside":['
        + KEY_JSON
        + b'],"in_use":[{"model":'
        + MODEL_JSON
        + b',"previous":'
        + MODEL_JSON
        + b"}]}"
    ),
    m.Accepted(key=KEY): b'{"kind":"accepted","key":' + KEY_JSON + b"}",
    m.Declined(
        key=KEY,
        reason="memory",
        detail="needs 290 MB",
        shortage=m.Shortage(
            micro_batch=1,
            checkpointing=True,
            needed_bytes=290,
            allowed_bytes=250,
            encoder_bytes=270,
            decoders=(m.TaskBytes(task="jerk", bytes=20),),
            peak_bytes=251,
        ),
        again_s=60.0,
    ): (
        b'{"kind":"declined","key":' + KEY_JSON + b',"reason":"memory","detail":"needs 290 MB",'
        b'"shortage":{"micro_batch":1,"checkpointing":true,"needed_bytes":290,"allowed_bytes":250,'
        b'"encoder_bytes":270,"decoders":[{"task":"jerk","bytes":20}],"peak_bytes":251},"again_s":60.0}'
    ),
    m.Failed(key=KEY, reason="memory"): b'{"kind":"failed","key":' + KEY_JSON + b',"reason":"memory"}',
    m.Progress(key=KEY, phase="train", step=5, steps=40, energy_j=1.5): (
        b'{"kind":"progress","key":' + KEY_JSON + b',"phase":"train","step":5,"steps":40,"energy_j":1.5}'
    ),
    m.Update(
        key=KEY,
        weights=REF,
        examples=128,
        trained=(m.Score(task="jerk", count=128.0, loss_sum=64.5),),
        scores=(m.Score(task="jerk", count=32.0, loss_sum=8.0, constant_loss_sum=9.0, metric_sum=4.0),),
        affinity=m.AffinitySums(tasks=("jerk",), batches=(2,), w=(2.0,), ww=(2.0,), wz=(0.5,), wzz=(0.25,)),
        profile=m.Profile(
            rows=(
                m.Spend(
                    job="j1",
                    group="g0",
                    round=3,
                    phase="train",
                    wall_s=2.0,
                    cpu_s=1.5,
                    window_energy_j=9.0,
                    peak_w=5.5,
                    rails=(m.Rail(name="VDD_GPU_SOC", energy_j=3.0),),
                    t0_ns=0,
                    t1_ns=5,
                ),
            ),
            sensor=SENSOR,
            idle_w=2.5,
            trace=m.Trace(t_ns=(0, 5), energy_j=(0.0, 1.0), variance_j2=(0.0, 0.5)),
            shared_gpu_j=0.0,
            baseline=m.Baseline(power_w=2.5, u_w=0.1, how="measured", n=30, drift_w=-0.2),
            machine=m.Machine(governor="schedutil", temperature_c=48.5, throttled=False),
            sampling=m.Sampling(wall_s=2.0, samples=19, gaps=1),
            profiler_cpu_s=0.01,
            refused=(m.Refusal(sensor="nvml", reason="no GPU"),),
        ),
        fit=m.Fit(micro_batch=16, estimated_bytes=240, allowed_bytes=250),
    ): (
        b'{"kind":"update","key":' + KEY_JSON + b',"weights":' + REF_JSON + b',"examples":128,'
        b'"trained":[{"task":"jerk","count":128.0,"loss_sum":64.5}],'
        b'"scores":[{"task":"jerk","count":32.0,"loss_sum":8.0,"constant_loss_sum":9.0,"metric_sum":4.0}],'
        b'"affinity":{"tasks":["jerk"],"batches":[2],"w":[2.0],"ww":[2.0],"wz":[0.5],"wzz":[0.25]},'
        b'"profile":{"rows":[{"job":"j1","group":"g0","round":3,"phase":"train","wall_s":2.0,"cpu_s":1.5,'
        b'"window_energy_j":9.0,"peak_w":5.5,"rails":[{"name":"VDD_GPU_SOC","energy_j":3.0}],'
        b'"t0_ns":0,"t1_ns":5}],"sensor":' + SENSOR_JSON + b',"idle_w":2.5,'
        b'"trace":{"t_ns":[0,5],"energy_j":[0.0,1.0],"variance_j2":[0.0,0.5]},"shared_gpu_j":0.0,'
        b'"baseline":{"power_w":2.5,"u_w":0.1,"how":"measured","n":30,"drift_w":-0.2},'
        b'"machine":{"governor":"schedutil","temperature_c":48.5,"throttled":false},'
        b'"sampling":{"wall_s":2.0,"samples":19,"gaps":1},"profiler_cpu_s":0.01,'
        b'"refused":[{"sensor":"nvml","reason":"no GPU"}]},'
        b'"fit":{"micro_batch":16,"estimated_bytes":240,"allowed_bytes":250}}'
    ),
    m.Deployed(
        request="f3-1",
        job="j1",
        group="g0",
        verdict="refused",
        why="loss 0.30, in use 0.25",
        profile=m.InferenceProfile(
            scores=(m.Score(task="jerk", count=32.0, loss_sum=9.6),),
            latency_p50_s=0.002,
            latency_p95_s=0.003,
            inputs_per_s=900.0,
            batch=32,
            peak_rss_bytes=90_000_000,
            energy_j=0.004,
            energy_u_j=0.001,
            method="estimated",
        ),
        running=m.InferenceProfile(scores=(m.Score(task="jerk", count=32.0, loss_sum=8.0),)),
        in_use=m.InUse(model=MODEL),
    ): (
        b'{"kind":"deployed","request":"f3-1","job":"j1","group":"g0","verdict":"refused",'
        b'"why":"loss 0.30, in use 0.25",'
        b'"profile":{"scores":[{"task":"jerk","count":32.0,"loss_sum":9.6}],"latency_p50_s":0.002,'
        b'"latency_p95_s":0.003,"inputs_per_s":900.0,"batch":32,"peak_rss_bytes":90000000,"energy_j":0.004,'
        b'"energy_u_j":0.001,"method":"estimated"},'
        b'"running":{"scores":[{"task":"jerk","count":32.0,"loss_sum":8.0}]},'
        b'"in_use":{"model":' + MODEL_JSON + b"}}"
    ),
    m.Deploy(request="f3-1", workload="watch", job="j1", group="g0", model=MODEL, margin=0.1): (
        b'{"kind":"deploy","request":"f3-1","workload":"watch","job":"j1","group":"g0","model":'
        + MODEL_JSON
        + b',"margin":0.1}'
    ),
    m.Need(digest="ab" * 32, ranges=((0, 2), (5, 6))): (
        b'{"kind":"need","digest":"' + b"ab" * 32 + b'","ranges":[[0,2],[5,6]]}'
    ),
    m.Alive(online=True, boot_id="b7", reasons=(m.Reason(condition="power", detail="on battery"),)): (
        b'{"kind":"alive","online":true,"boot_id":"b7",'
        b'"reasons":[{"condition":"power","detail":"on battery"}]}'
    ),
    m.Welcome(boot_id="b7", store="5e"): b'{"kind":"welcome","boot_id":"b7","store":"5e"}',
    m.Greet(): b'{"kind":"greet"}',
    m.Assign(
        key=KEY,
        tasks=("gravity", "jerk"),
        training=m.Training(
            workload="watch", network="micro", rounds=20, epochs=1, batch=64, lr=0.1, seed=7, prox_mu=0.01
        ),
        weights=REF,
        fingerprint="f0",
        evaluate=True,
        remaining_s=90.5,
    ): (
        b'{"kind":"assign","key":' + KEY_JSON + b',"tasks":["gravity","jerk"],'
        b'"training":{"workload":"watch","network":"micro","rounds":20,"epochs":1,"batch":64,"lr":0.1,"seed":7,'
        b'"prox_mu":0.01},'
        b'"weights":' + REF_JSON + b',"fingerprint":"f0","evaluate":true,"remaining_s":90.5}'
    ),
    m.Stored(key=KEY): b'{"kind":"stored","key":' + KEY_JSON + b"}",
    m.Cancel(key=KEY): b'{"kind":"cancel","key":' + KEY_JSON + b"}",
}
