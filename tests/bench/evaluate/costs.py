"""Time and memory of one request under every policy: generate, one after the other, alone on the server."""
from client import Records, ask
from needles import haystack, BYTES_PER_TOKEN

POLICIES = (("full", ""), ("funnel", "12.5%"), ("snapkv", "12.5%"), ("pyramidkv", "12.5%"), ("h2o", "12.5%"), ("streaming_llm", "12.5%"))
ANSWER_TOKENS = 64


def seconds(text):
    return float(text.rstrip("s"))


def measure(path, lengths):
    """[{"policy", "tokens", "prefill", "compress", "decode" in seconds, "peak", "held" in bytes}]"""
    records, rows = Records(path), []
    for length in lengths:
        for policy, budget in POLICIES:
            def once():
                options = ["--policy", policy, *(["--budget", budget] if budget else [])]
                reply = ask("generate", "--raw", "--ignore-eos", "--temperature", "0", "--max-tokens", str(ANSWER_TOKENS), *options,
                            text="\n".join(haystack(int(length * BYTES_PER_TOKEN))))
                timings, cache = reply["timings"], reply["cache"]
                return {"policy": policy, "tokens": reply["usage"]["promptTokens"], "prefill": seconds(timings["prefill"]),
                        "compress": seconds(timings.get("compress", "0s")), "decode": seconds(timings["decode"]) / (ANSWER_TOKENS - 1),
                        "peak": int(cache["peakBytes"]), "held": int(cache["allocatedBytes"]) + int(cache["auxiliaryBytes"])}
            rows.append(records.measure(f"{policy} {length}", once))
            print(f"{policy}, {rows[-1]['tokens']} tokens: {rows[-1]['prefill']:.2f} s, {1 / rows[-1]['decode']:.0f} tokens/s", flush=True)
    return rows


def page(rows):
    full = {row["tokens"]: row for row in rows if row["policy"] == "full"}
    lines = ["| policy | prompt | prefill, to full | of it scoring and cutting | decode, tokens/s to full | peak MiB | held MiB |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        base = full[row["tokens"]]
        lines.append(f"| `{row['policy']}` | {row['tokens']} | {row['prefill'] / base['prefill']:.2f} | {100 * row['compress'] / row['prefill']:.1f} % "
                     f"| {base['decode'] / row['decode']:.2f} | {row['peak'] / 2**20:.1f} | {row['held'] / 2**20:.1f} |")
    return "\n".join(lines)
