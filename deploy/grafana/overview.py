"""The operators' dashboard: is it serving, what is saved, is there room, how fast are answers, what goes wrong."""
from panels import (BYTES, COUNT, FIRING, INSTANCE, RATIO, SECONDS, TIMES, add_row, dial, figure, lines, listing, mean, metric,
                    new_dashboard, quantile, rate)

UID, TITLE = "pyramidkv-overview", "PyramidKV: overview"
BEFORE_ENGINE = INSTANCE + ', phase=~"queued|preparing"'
CACHE = ("pyramidkv-cache", "PyramidKV: cache anatomy")


def glance():
    saved, full, held = (f"sum({metric('kv_cache_' + name)})" for name in ("saved_bytes", "full_equivalent_bytes", "held_bytes"))
    return [
        figure(1, "Server state", "How many of the chosen servers are in which state. Anything but `serving` takes no new requests.", COUNT,
               [(f"count by (state) ({metric('server_state', INSTANCE)} == 1)", "{{state}}")], sparkline=False, named=True, width=3),
        figure(2, "Alerts firing", "Firing alerts of these servers; docs/runbook.md has a section for each.", COUNT,
               [(f"count({FIRING}) or vector(0)", "firing")], [(None, "green"), (1, "red")], sparkline=False, width=3),
        figure(3, "Saved now", "Cache bytes that the running requests would hold beyond what they do hold if each had the full f16 cache. "
               "Zero when nothing runs; slightly negative when only full caches run, as page slack and bookkeeping count against it.",
               BYTES, [(saved, "saved")], [(None, "orange"), (0, "green")], decimals=1),
        figure(4, "Share saved now", "Saved bytes as a share of the full caches. How many times more requests fit is the next figure.",
               RATIO, [(f"{saved} / {full}", "share")], [(None, "orange"), (0.01, "green")], decimals=1),
        figure(5, "Extra concurrency", "Full-equivalent bytes per held byte: so many such requests fit where one full cache would.",
               TIMES, [(f"{full} / {held}", "times")], [(None, "orange"), (1.01, "green")], decimals=1),
        dial(6, "Pool usage", "The fullest pool among the chosen servers: live pages as a share of the pool.",
             [(f"max({metric('kv_cache_usage_ratio', INSTANCE)})", "used")], [(None, "green"), (0.8, "orange"), (0.95, "red")], width=3),
        figure(7, "Waiting", "Requests that wait for memory or a place. Lasting above zero: the servers are at their limit.", COUNT,
               [(f"sum({metric('requests_waiting', INSTANCE)})", "waiting")], [(None, "green"), (1, "orange"), (50, "red")], width=3),
    ]


def memory():
    pool, free, reserved = (f"sum({metric(f'kv_cache_{name}_bytes', INSTANCE)})" for name in ("pool", "free", "reserved"))
    return [
        lines(20, "Cache held, by policy", "Bytes of cache entries of the running requests. Compare with the full equivalent (dashed): the "
              "gap is what the policies cut away.", BYTES,
              [(f"sum by (policy) ({metric('kv_cache_held_bytes')})", "{{policy}}"),
               (f"sum({metric('kv_cache_full_equivalent_bytes')})", "full equivalent")], dashed="full equivalent"),
        lines(21, "Saved, by policy", "Full equivalent less pages and bookkeeping, policy by policy. `full` lies slightly below zero.", BYTES,
              [(f"sum by (policy) ({metric('kv_cache_saved_bytes')})", "{{policy}}")], minimum=None),
        lines(22, "Pool", "Live pages, and what admission has promised (live pages included), against the pool's size (dashed). "
              "Requests wait when the promised bytes reach the size, not when the live ones do.", BYTES,
              [(f"{pool} - {free}", "live"), (reserved, "reserved"), (pool, "pool size")], dashed="pool size"),
    ]


def traffic():
    return [
        lines(30, "Requests running and waiting", "Waiting with a free place among the running ones means waiting for memory. Those that "
              "are being prepared (tokenised, planned) take places of the queue, too.", COUNT,
              [(f"sum({metric('requests_running', INSTANCE)})", "running"), (f"sum({metric('requests_waiting', INSTANCE)})", "waiting"),
               (f"sum({metric('calls', BEFORE_ENGINE)})", "being prepared")],
              width=6),
        lines(31, "Requests ended, by policy", "Generation calls that ended, a second, however they ended.", "reqps",
              [(f"sum by (policy) ({rate('requests_total')})", "{{policy}}")], width=6),
        lines(32, "Tokens", "Prompt tokens read and tokens generated, a second. Generated ones are the answers' speed, all together.",
              COUNT, [(f"sum({rate('prompt_tokens_total')})", "prompt tokens/s"),
                      (f"sum({rate('generation_tokens_total')})", "generated tokens/s")], width=6),
        lines(33, "Answers, by what ended them", "`length` reached max_tokens, `stop` an end token or stop string. A sudden move towards "
              "`length` is how a budget too small for the task often shows first.", "reqps",
              [(f"sum by (finish_reason) ({rate('requests_finished_total')})", "{{finish_reason}}")], width=6),
    ]


def latency():
    def three(name):
        return [(quantile(share, name), f"p{round(100 * share)}") for share in (0.5, 0.95, 0.99)]

    return [
        lines(40, "Time to first token", "From arrival at the engine to the first token: queue, prompt, compression. All chosen policies.",
              SECONDS, three("time_to_first_token_seconds"), width=6),
        lines(41, "Time to first token p95, by policy", "Policies read the same prompt at nearly the same speed; one that stands out has longer "
              "prompts or waits for more memory.", SECONDS,
              [(quantile(0.95, "time_to_first_token_seconds", "policy"), "{{policy}}")], width=6),
        lines(42, "Inter-token latency", "Time between tokens of one answer. Long prompts that are read meanwhile raise the upper "
              "percentiles; `scheduler.step_tokens` bounds by how much. The line marks the alert's limit.",
              SECONDS, three("inter_token_latency_seconds"), width=6, limit=0.5),
        lines(43, "Inter-token latency p95, by policy", "A smaller cache is read faster: compressing policies lie below `full` once "
              "contexts are long.", SECONDS, [(quantile(0.95, "inter_token_latency_seconds", "policy"), "{{policy}}")], width=6),
        lines(44, "Queue time", "From arrival to admission. It grows with waiting requests: more memory, smaller budgets or more replicas.",
              SECONDS, three("request_queue_duration_seconds"), width=12),
        lines(45, "Request duration", "Of completed answers, from arrival to the last token.", SECONDS,
              three("request_duration_seconds"), width=12),
    ]


def errors():
    failed = INSTANCE + ', code!="OK"'
    return [
        lines(50, "Ended, by status code", "gRPC status codes of generation calls, OK left out. CANCELLED is a client's choice; INTERNAL never is.",
              "reqps", [(f"sum by (code) ({rate('requests_total', failed)})", "{{code}}")], width=12, legend_right=True),
        lines(51, "Refused, by reason", "Calls refused before they ran. QUEUE_FULL: scale out or send less. CACHE_NEVER_FITS: the pool is "
              "too small for what is asked. Most others are mistakes of callers.", "reqps",
              [(f"sum by (reason) ({rate('requests_rejected_total', INSTANCE)})", "{{reason}}")], width=12, legend_right=True),
    ]


def engine():
    return [
        lines(60, "Steps", "Engine steps a second. Zero with requests running: the engine hangs.", "ops",
              [(f"sum({rate('engine_steps_total', INSTANCE)})", "steps/s")], width=6),
        lines(61, "Sequences decoded together", "Mean per step that gave tokens. The higher, the better the weights' memory traffic is shared.",
              COUNT, [(mean("batch_size", labels=INSTANCE), "sequences")], width=6),
        lines(62, "Rows of model work a step", "Mean of steps that had any: rows of a prompt's chunk in one layer, and one per answer that goes on. "
              "`scheduler.step_tokens` is the limit of the former.", COUNT, [(mean("step_tokens", labels=INSTANCE), "rows")], width=6),
        lines(63, "Memory by component", "Weights, live cache pages and workspace of the chosen servers, on a GPU all that they have of it, and the processes' resident memory.", BYTES,
              [(f"sum by (component) ({metric('device_memory_bytes', INSTANCE)})", "{{component}}"),
               (f"sum(process_resident_memory_bytes{{{INSTANCE}}})", "resident")], width=6, dashed="resident"),
        lines(64, "Processor", "Cores kept busy, instance by instance.", COUNT,
              [(f"rate(process_cpu_seconds_total{{{INSTANCE}}}[$__rate_interval])", "{{instance}}")], width=6),
        lines(65, "Open files", "File descriptors in use as a share of the limit. A steady climb is a leak of connections.", RATIO,
              [(f"process_open_fds{{{INSTANCE}}} / process_max_fds{{{INSTANCE}}}", "{{instance}}")], width=6),
        listing(66, "Build and model", "Version and model of each server. Different rows during a roll-out are expected, afterwards not.",
                f"{metric('model_info', INSTANCE)} * on (job, instance) group_left (version) {metric('build_info', INSTANCE)}",
                [("instance", "Instance"), ("version", "Version"), ("model", "Model"), ("architecture", "Architecture"), ("weights", "Weights"),
                 ("job", "Job")], 12, 8),
    ]


def build():
    result = new_dashboard(UID, TITLE, "PyramidKV Server at a glance: what the cache policies save, room in the pool, speed, errors.", CACHE)
    add_row(result, 100, "At a glance", glance())
    add_row(result, 101, "Cache memory", memory())
    add_row(result, 102, "Traffic", traffic())
    add_row(result, 103, "Latency", latency())
    add_row(result, 104, "Errors and refusals", errors())
    add_row(result, 105, "Engine and process", engine())
    return result.build()
