"""The anatomy of the cache: what the policies keep and save, where the pool's bytes are, the pyramid over the layers, what is lost."""
from panels import (BYTES, INSTANCE, RATIO, SECONDS, TIMES, add_row, bars, chosen_variable, lines, mean, metric, new_dashboard, quantile, rate)

UID, TITLE = "pyramidkv-cache", "PyramidKV: cache anatomy"
DRAWN = INSTANCE + ', policy=~"$drawn"'
OVERVIEW = ("pyramidkv-overview", "PyramidKV: overview")


def by_policy(expr):
    return f"sum by (policy) ({expr})"


def savings():
    held, full = by_policy(rate("kv_cache_held_byte_seconds_total")), by_policy(rate("kv_cache_full_equivalent_byte_seconds_total"))
    return [
        lines(1, "Exact average saved", "Full-equivalent less held bytes, averaged over time from the byte-second counters: exact however short the "
              "requests are, where the gauges are only samples.", BYTES, [(f"{full} - {held}", "{{policy}}")]),
        lines(2, "Exact average share saved", "The same as a share of the full caches. `full` stays at zero by definition.", RATIO,
              [(f"1 - {held} / {full}", "{{policy}}")], minimum=None, maximum=1),
        lines(3, "Concurrency bought, by policy", "Full-equivalent bytes per held byte, averaged over time: so many requests of a policy fit "
              "in the place of one full cache.", TIMES, [(f"{full} / {held}", "{{policy}}")]),
        lines(4, "Bills of completed requests", "What completed requests would have held in full caches, a second, and what they held "
              "at their end: pages and bookkeeping. The gap is the sum of `saved_bytes` in their replies.", "Bps",
              [(f"sum({rate('request_kv_cache_full_bytes_total')})", "full caches"),
               (f"sum({rate('request_kv_cache_allocated_bytes_total')})", "pages"),
               (f"sum({rate('request_kv_cache_auxiliary_bytes_total')})", "bookkeeping")], width=12),
        lines(5, "Saved by completed requests, by policy", "Full less pages less bookkeeping of the replies' reports, a second.", "Bps",
              [(by_policy(f"{rate('request_kv_cache_full_bytes_total')} - {rate('request_kv_cache_allocated_bytes_total')} "
                          f"- {rate('request_kv_cache_auxiliary_bytes_total')}"), "{{policy}}")], minimum=None, width=12),
    ]


def pool():
    held, allocated = (f"sum({metric(f'kv_cache_{name}_bytes', INSTANCE)})" for name in ("held", "allocated"))
    size, free, reserved = (f"sum({metric(f'kv_cache_{name}_bytes', INSTANCE)})" for name in ("pool", "free", "reserved"))
    return [
        lines(10, "Pool anatomy", "The whole pool: entries, the unused ends of pages, what is promised to admitted requests and not used yet "
              "(answers still to come, prompts being read), and what admission can still give away.", BYTES,
              [(held, "entries"), (f"{allocated} - {held}", "page slack"), (f"{reserved} - ({size} - {free})", "reserved, not used yet"),
               (f"{size} - {reserved}", "free to admit")], stacked=True, width=12, legend_right=True),
        lines(11, "Page slack", "Share of the allocated pages that holds no entries. High with small budgets: smaller `cache.page_bytes` helps.",
              RATIO, [(f"1 - {by_policy(metric('kv_cache_held_bytes'))} / {by_policy(metric('kv_cache_allocated_bytes'))}", "{{policy}}")],
              width=6),
        lines(12, "Bookkeeping", "Bytes of positions, page tables and kept scores beside the entries; it counts against what is saved.", BYTES,
              [(by_policy(metric("kv_cache_auxiliary_bytes")), "{{policy}}")], width=6),
    ]


def pyramid():
    # Grafana sorts series by their labels as text: with three digits that is the order of the layers.
    layer = 'label_replace(label_replace({}, "layer", "0$1", "layer", "([0-9])"), "layer", "0$1", "layer", "([0-9][0-9])")'
    held = f"sum by (layer) ({metric('kv_cache_layer_held_bytes', DRAWN)})"
    return [
        bars(20, "Held by layer: $drawn", "Bytes held in each layer (the first on top), averaged over the time range. pyramidkv gives the lower "
             "layers more than the upper ones; policies with one budget for all layers draw a block. Prompts fill the layers one after another: "
             "while much is read and little generated, every shape leans.", BYTES,
             [(layer.format(held), "{{layer}}")], 6, 14, "drawn", 4),
    ]


def quality():
    def middle_and_low(name):
        return [(mean(name, "policy"), "{{policy}} mean"), (quantile(0.1, name, "policy"), "{{policy}} p10")]

    return [
        lines(30, "Recall", "Share of the observed attention that the kept entries carried, of completed requests: the mean, and the tenth that "
              "lost most (dashed). Low recall is where answers begin to change. Percentiles are interpolated between buckets.", RATIO,
              middle_and_low("request_kv_cache_recall_ratio"), maximum=1, dashed=".*p10"),
        lines(31, "Kept share", "Entries held at the end as a share of the full cache, of completed requests: the mean, and the tenth that kept "
              "least (dashed, interpolated between buckets). `full` has a mean of 1.", RATIO, middle_and_low("request_kv_cache_keep_ratio"),
              dashed=".*p10"),
        lines(32, "Peak of a request", "The most cache memory a request held at any instant, mean of completed requests; admission reserves for it.",
              BYTES, [(mean("request_kv_cache_peak_bytes", "policy"), "{{policy}}")]),
    ]


def cost():
    return [
        lines(40, "Compression time", "Time spent scoring and cutting, mean per compressed request. It is part of the time to the first token.",
              SECONDS,
              [(mean("kv_cache_compression_duration_seconds", "policy"), "{{policy}}")], width=6),
        lines(41, "Compression's share of the prefill", "Scoring and cutting as a share of the time in which prompts are read, what runs in "
              "between for others included. A few percent is normal; more means windows or kernels that are large for the prompts.", RATIO,
              [(f"{by_policy(rate('kv_cache_compression_duration_seconds_sum'))} / {by_policy(rate('request_prefill_duration_seconds_sum'))}",
                "{{policy}}")], width=6),
        lines(42, "Prompts, compressed or not", "`unchanged`: the prompt was within the budget, or the policy keeps everything.", "reqps",
              [(f"sum by (outcome) ({rate('kv_cache_compressions_total')})", "{{outcome}}")], width=6),
        lines(43, "Evicted entries", "Entries (one KV head, one token) dropped a second: at the cut after the prompt, and while answers grow "
              "(scope TOTAL).", "cps", [(f"sum by (phase) ({rate('kv_cache_evicted_entries_total')})", "{{phase}}")], width=6),
    ]


def build():
    result = new_dashboard(UID, TITLE, "What each cache policy keeps, saves and costs; where the pool's bytes are; the pyramid over the layers.",
                           OVERVIEW)
    result.with_variable(chosen_variable("drawn", "Layers of", "Policies whose layers are drawn.", ("full", "h2o", "pyramidkv", "snapkv")))
    add_row(result, 100, "Saved", savings())
    add_row(result, 101, "Pool", pool())
    add_row(result, 102, "The pyramid", pyramid())
    add_row(result, 103, "What is kept and what is lost", quality())
    add_row(result, 104, "What it costs", cost())
    return result.build()
