"""What the machine could do at most: how fast it reads memory and multiplies, and what that allows of tokens a second."""
import json
import os
import re
import subprocess


PATHS = ("avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx_bf16")  # each has what those before it have


def paths_up_to(isa):
    return PATHS[:PATHS.index(isa) + 1] if isa in PATHS else PATHS


def measured(bin_folder, threads, isa=""):
    """{"read": GB/s of memory, "avx2": GFLOP/s, ...} of all threads, by gemm_bench; of paths up to `isa`, where it is given."""
    peaks = "|".join(paths_up_to(isa))
    command = [os.path.join(bin_folder, "gemm_bench"), f"--threads={threads}", f"--benchmark_filter=^(read|peak/({peaks}))/",
               "--benchmark_format=json", "--benchmark_min_time=0.3"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rates = {}
    for row in report["benchmarks"]:
        name = row["name"].split("/")
        if name[0] == "read":
            rates["read"] = row["GB/s"]
        elif "GFLOP/s" in row:
            rates[name[1]] = row["GFLOP/s"]
    return rates


def arithmetic(rates):
    """The path that multiplies fastest and its GFLOP/s."""
    return max(((path, rate) for path, rate in rates.items() if path != "read"), key=lambda pair: pair[1], default=("", 0.0))


def prefill_gflop(model, tokens):
    """Of a whole prompt: the layers' products, and attention of every token to those before it. The head reads one row."""
    queries, entries = model["q_heads"] * model["head_dim"], model["kv_heads"] * model["head_dim"]
    weights = model["width"] * (2 * queries + 2 * entries + 3 * model["feed_forward"])
    pairs = tokens * (tokens + 1) // 2
    return 2e-9 * model["layers"] * (tokens * weights + 2 * pairs * queries)


def step_gigabytes(model, entries, sequences=1):
    """Of one decode step: every weight once, and the cache of every sequence."""
    return 1e-9 * (model["step_weight_bytes"] + sequences * entries * model["kv_bytes_per_token"])


def most(case, model, rates):
    """Tokens a second that the machine's limits allow in a case; None where none is known."""
    if case.phase == "prefill":
        _, gflops = arithmetic(rates)
        return case.prompt * gflops / prefill_gflop(model, case.prompt) if gflops else None
    entries = case.entries + case.decode / 2
    return case.sequences * rates["read"] / step_gigabytes(model, entries, case.sequences) if rates.get("read") else None


# ---- which machine this is

# AMD: family, models from .. to; Intel: family 6, model.
AMD_KINDS = [(23, 0x00, 0x2f, "zen1"), (23, 0x30, 0xff, "zen2"), (25, 0x10, 0x1f, "zen4"), (25, 0x60, 0x7f, "zen4"),
             (25, 0xa0, 0xaf, "zen4"), (25, 0x00, 0xff, "zen3"), (26, 0x00, 0xff, "zen5")]
INTEL_KINDS = {63: "haswell", 79: "broadwell", 85: "skylake", 106: "icelake", 108: "icelake", 143: "spr", 207: "emr", 173: "gnr",
               174: "gnr"}


def cpu_fields(cpuinfo):
    """The first processor of /proc/cpuinfo."""
    return {match[1].strip(): match[2].strip() for match in re.finditer(r"^([^:\n]+):(.*)$", cpuinfo.split("\n\n")[0], re.MULTILINE)}


def kind(fields):
    """A short name of the CPU's kind: zen4, spr, ...; its numbers where no name is known."""
    family, model = int(fields.get("cpu family", -1)), int(fields.get("model", -1))
    vendor = fields.get("vendor_id", "")
    if vendor == "AuthenticAMD":
        for known, first, last, name in AMD_KINDS:
            if family == known and first <= model <= last:
                return name
    elif vendor == "GenuineIntel" and family == 6 and model in INTEL_KINDS:
        return INTEL_KINDS[model]
    if family < 0:
        return "unknown"
    return f"{vendor.lower() or 'cpu'}-{family}-{model}"
